"""The baseline for groups of animals: simple statistics of the traces in a linear model.

    scores = beside_simple_statistics(scores, recordings, datasets["train"], datasets["test"], "minmax")
    print(scores.to_markdown())

A transformer that tells groups apart has learnt something only if this does not do as well. Seven statistics of each
neuron's trace, their mean and standard deviation over the neurons of a recording, make fourteen numbers; an
L2-regularised logistic regression is fitted to those of the training recordings alone.

The statistics are taken of traces scaled as the model sees them. The absolute scale is set by laser power, expression
and preparation as much as by the animal: a baseline that reads it would win where groups were only recorded
differently, and says nothing about a model that cannot see it. Min-max scaled, mean and SD still depend on noise and
on the length of the recording, as the model's input does.

Shapes: N neurons, T frames, L frames in the longest segment, R recordings, K classes.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.fft import next_fast_len
from scipy.stats import norm

from .crossval.learners import logistic
from .dataset_scripts.recording import Recording
from .dataset_scripts.windows import WindowDataset
from .evaluation import ClassificationScores
from .metrics.subject_classification import levels, scored_windows, unit_scores
from .processing_neurt import scale_traces
from .splits import label_of

SIMPLE_STATISTICS = "simple statistics"
STATISTICS = (
    "mean",
    "SD",
    "skewness",
    "autocorrelation at 1 s",
    "autocorrelation time",
    "noise level",
    "event rate",
)
# Upward crossings that white noise alone gives, per second (Hz).
FALSE_EVENTS = 0.001
# An event is over when the trace is back within half an SD of the noise (Dombeck et al. 2007,
# 10.1016/j.neuron.2007.08.003), so that noise on a slow rise or decay is not counted again and again.
EVENT_END = 0.5
# The median magnitude of the difference between two draws from a normal distribution, in its SDs.
MEDIAN_STEP = 2**0.5 * norm.ppf(0.75)
# Neurons whose spectra are held at a time.
NEURON_BLOCK = 64


def beside_simple_statistics(
    scores: ClassificationScores,
    recordings: Sequence[Recording],
    train: WindowDataset,
    test: WindowDataset,
    normalization: str,
) -> ClassificationScores:
    """Add the baseline's rows, measured on the recordings that the model was tested on.

    Args:
        scores: The model's, on `test`.
        recordings: Among them those of which `train` and `test` have windows.
        train: What the model was trained on; the baseline is fitted to its recordings.
        test: What the model was tested on.
        normalization: How the model's traces are scaled: "minmax", "zscore" or "none".

    Returns:
        The scores with two rows more, "recording" and "subject" of the predictor "simple statistics". They are NaN,
        with the reason in `undefined`, where a class has no training recording.
    """
    sides = []
    for dataset in (train, test):
        members = set(dataset.recording_ids)
        sides.append([recording for recording in recordings if recording.recording_id in members])
    class_ids = [[train.label2id[label_of(recording, train.label)] for recording in side] for side in sides]
    rows = simple_statistics_rows(*sides, *class_ids, len(train.label2id), normalization)
    return dataclasses.replace(scores, rows=scores.rows + rows)


def simple_statistics_rows(
    train: Sequence[Recording],
    test: Sequence[Recording],
    train_classes: Sequence[int],
    test_classes: Sequence[int],
    num_classes: int,
    normalization: str = "minmax",
) -> list[dict[str, Any]]:
    """Fit the baseline to some recordings and score it on others, by recording and by subject.

    Args:
        train: Recordings to fit to; every animal counts once, however many recordings it has.
        test: Recordings to score.
        train_classes: Class id of each training recording.
        test_classes: Class id of each test recording.
        num_classes: Number of classes K.
        normalization: As in `recording_statistics`.

    Returns:
        Rows as in `ClassificationScores`. A recording's score is its log-odds, a subject's their mean.

    Raises:
        ValueError: If there is nothing to score, or a subject has two classes.
    """
    missing = sorted(set(range(num_classes)) - set(train_classes))
    logits = np.zeros((len(test), num_classes))
    if not missing:
        logits = simple_statistics_logits(train, test, train_classes, normalization)
    names = [recording.recording_id for recording in test]
    units = levels(scored_windows(logits, test_classes, names, [recording.subject_id for recording in test]))
    rows = [_row(level, unit_scores(units[level])) for level in ("recording", "subject")]
    if missing:
        reason = f"no training recording of class {', '.join(map(str, missing))}"
        rows = [_undefined(row, reason) for row in rows]
    return rows


def simple_statistics_logits(
    train: Sequence[Recording], test: Sequence[Recording], train_classes: Sequence[int], normalization: str = "minmax"
) -> np.ndarray:
    """Fit to some recordings of at least two classes and score others; every training animal counts once.

    Returns:
        Logits (R, K) of the test recordings, relative to class 0.
    """
    features, unseen = (np.stack([recording_statistics(r, normalization) for r in side]) for side in (train, test))
    subjects = [recording.subject_id for recording in train]
    weights = np.array([1 / subjects.count(subject) for subject in subjects])
    return logistic(features, np.asarray(train_classes), weights)(unseen)


def recording_statistics(recording: Recording, normalization: str = "minmax") -> np.ndarray:
    """Mean over neurons of each of `STATISTICS`, then their standard deviation over neurons (ddof 0).

    Neurons that the curator rejected, or with a constant trace, NaN or infinite frames are left out, as from windows.

    Args:
        recording: At least one neuron must be left.
        normalization: "minmax" or "none", as the model's. For "zscore" min-max is used too: it tells no more than a
            z-scored trace does, but its mean and SD are not the same everywhere.

    Returns:
        float64 (14,).
    """
    recording = recording.accepted_neurons()
    finite = recording.traces[np.isfinite(recording.traces).all(1)]
    usable = finite[np.ptp(finite, axis=1) > 0]
    scaled = scale_traces(usable, "none" if normalization == "none" else "minmax")
    blocks = np.array_split(scaled, -(-len(scaled) // NEURON_BLOCK))
    rows = np.concatenate(
        [trace_statistics(block, recording.sampling_rate, recording.segment_starts) for block in blocks]
    )
    return np.concatenate([np.mean(rows, axis=0), np.std(rows, axis=0)])


def trace_statistics(traces: np.ndarray, sampling_rate: float, segment_starts: Sequence[int] = (0,)) -> np.ndarray:
    """The seven `STATISTICS` of each trace.

    The autocorrelation time is the lag in s at which the autocorrelation falls below 1/e, between lags interpolated.
    The noise level is the median absolute difference between successive frames over the square root of the frame
    rate, which makes white noise in ΔF/F comparable between frame rates (Rupprecht et al. 2021,
    10.1038/s41593-021-00895-5). Events are counted by `event_rates`. No pair of frames is taken from two segments.

    Args:
        traces: (N, T), finite, and none constant.
        sampling_rate: Hz.
        segment_starts: Frames at which segments begin, from 0.

    Returns:
        float64 (N, 7); the autocorrelation at 1 s and the noise level are 0 where no segment is long enough for a
        pair, and the autocorrelation time is the longest lag if it does not fall that far.
    """
    traces = traces.astype(np.float64)
    deviations = traces - traces.mean(axis=1, keepdims=True)
    variances = np.mean(deviations**2, axis=1)
    correlations = autocorrelations(traces, segment_starts)
    return np.column_stack(
        [
            traces.mean(axis=1),
            np.sqrt(variances),
            np.mean(deviations**2 * deviations, axis=1) / variances**1.5,  # a cube takes 50 times as long
            at_lag(correlations, sampling_rate, 1.0, missing=0.0),
            _first_below(correlations, 1 / np.e) / sampling_rate,
            _median_steps(traces, segment_starts) / np.sqrt(sampling_rate),
            event_rates(traces, sampling_rate, segment_starts),
        ]
    )


def autocorrelations(traces: np.ndarray, segment_starts: Sequence[int] = (0,)) -> np.ndarray:
    """Mean product of deviations from the trace's mean, over its variance, at each lag within a segment.

    Args:
        traces: float64 (N, T), none constant.
        segment_starts: Frames at which segments begin, from 0.

    Returns:
        float64 (N, L), the first column 1.
    """
    segments = np.split(traces - traces.mean(axis=1, keepdims=True), segment_starts[1:], axis=1)
    longest = max(segment.shape[1] for segment in segments)
    products, pairs = np.zeros((len(traces), longest)), np.zeros(longest)
    for segment in segments:
        frames = segment.shape[1]
        # Twice as long at least, or the end of the segment would be paired with its beginning.
        length = next_fast_len(2 * frames, real=True)
        spectrum = np.fft.rfft(segment, length, axis=1)
        products[:, :frames] += np.fft.irfft(np.abs(spectrum) ** 2, length, axis=1)[:, :frames]
        pairs[:frames] += np.arange(frames, 0, -1)
    covariances = products / pairs
    return covariances / covariances[:, :1]


def at_lag(correlations: np.ndarray, sampling_rate: float, seconds: float, missing: float = np.nan) -> np.ndarray:
    """Autocorrelations (N, L) at a lag in s, of one frame at least: (N,), `missing` where no segment is that long."""
    lag = max(1, round(seconds * sampling_rate))
    return correlations[:, lag] if lag < correlations.shape[1] else np.full(len(correlations), missing)


def event_rates(traces: np.ndarray, sampling_rate: float, segment_starts: Sequence[int] = (0,)) -> np.ndarray:
    """Events per second (Hz) of each trace: how often it rises from near its median far above its noise.

    "Far" is a number of SDs of the noise that white noise exceeds once in 1000 s, whatever the frame rate (3.5 at
    5 Hz, 4.1 at 30 Hz). The SD is that of white noise with the same median difference between successive frames. Where
    most of these are 0, as in deconvolved events, any rise above the median counts.

    Args:
        traces: float64 (N, T).
        sampling_rate: Hz.
        segment_starts: Frames at which segments begin, from 0; what is under way there is not counted.

    Returns:
        float64 (N,).
    """
    noise = _median_steps(traces, segment_starts)[:, None] / MEDIAN_STEP
    above = traces - np.median(traces, axis=1, keepdims=True)
    marks = np.where(above > norm.isf(FALSE_EVENTS / sampling_rate) * noise, 1, 0)
    marks[above <= EVENT_END * noise] = -1
    frames = np.arange(traces.shape[1])
    last_marked = np.maximum.accumulate(np.where(marks != 0, frames, -1), axis=1)[:, :-1]
    same_segment = last_marked >= _beginnings(frames, segment_starts)[1:]
    rises = (marks[:, 1:] == 1) & (np.take_along_axis(marks, last_marked, axis=1) == -1) & same_segment
    return rises.sum(axis=1) * sampling_rate / traces.shape[1]


def _median_steps(traces: np.ndarray, segment_starts: Sequence[int]) -> np.ndarray:
    """The median magnitude of the steps from frame to frame within segments (N,); 0 without any."""
    beginnings = _beginnings(np.arange(traces.shape[1]), segment_starts)
    steps = np.abs(np.diff(traces, axis=1))[:, beginnings[1:] == beginnings[:-1]]
    return np.median(steps, axis=1) if steps.shape[1] else np.zeros(len(traces))


def _beginnings(frames: np.ndarray, segment_starts: Sequence[int]) -> np.ndarray:
    """Where the segment of each frame begins."""
    starts = np.asarray(segment_starts)
    return starts[np.searchsorted(starts, frames, side="right") - 1]


def _first_below(correlations: np.ndarray, level: float) -> np.ndarray:
    """The lag in frames at which each row first falls below a level under 1, interpolated; the last lag if none."""
    below = correlations < level
    after = np.where(below.any(axis=1), below.argmax(axis=1), correlations.shape[1])
    last = correlations.shape[1] - 1
    rows = np.arange(len(correlations))
    high, low = correlations[rows, after - 1], correlations[rows, np.minimum(after, last)]
    share = np.divide(high - level, high - low, out=np.zeros(len(rows)), where=after <= last)
    return after - 1 + share


def _undefined(row: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """Every score is a float; counts and names are not."""
    scores = {name: float("nan") for name, value in row.items() if isinstance(value, float)}
    return {**row, **scores, "undefined": reason, "calibration_undefined": reason}


def _row(level: str, scores: Mapping[str, Any]) -> dict[str, Any]:
    return {"level": level, "predictor": SIMPLE_STATISTICS, **scores}
