"""The baseline for groups of animals: simple statistics of the traces in a linear model.

    scores = beside_simple_statistics(scores, recordings, datasets["train"], datasets["test"], "minmax")
    print(scores.to_markdown())

A transformer that tells groups apart has learnt something only if this does not do as well. Five statistics of each
neuron's trace, their mean and standard deviation over the neurons of a recording, make ten numbers; an L2-regularised
logistic regression is fitted to those of the training recordings alone.

The statistics are taken of traces scaled as the model sees them. The absolute scale is set by laser power, expression
and preparation as much as by the animal: a baseline that reads it would win where groups were only recorded
differently, and says nothing about a model that cannot see it. Min-max scaled, mean and SD still depend on noise and
on the length of the recording, as the model's input does.

Shapes: N neurons, T frames, R recordings, K classes.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .dataset_scripts.recording import Recording
from .dataset_scripts.windows import WindowDataset
from .evaluation import ClassificationScores
from .metrics.subject_classification import levels, scored_windows, unit_scores
from .processing_neurt import scale_traces
from .splits import label_of

SIMPLE_STATISTICS = "simple statistics"
STATISTICS = ("mean", "SD", "skewness", "autocorrelation at 1 s", "noise level")
# scikit-learn's default. With ten features and a dozen animals, a choice by cross-validation would mostly be noise.
INVERSE_REGULARISATION = 1.0


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
        Log-odds (R,) of class 1 of the test recordings, or logits (R, K) of more than two classes.
    """
    features, unseen = (np.stack([recording_statistics(r, normalization) for r in side]) for side in (train, test))
    subjects = [recording.subject_id for recording in train]
    weights = [1 / subjects.count(subject) for subject in subjects]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=INVERSE_REGULARISATION, max_iter=1000))
    model.fit(features, train_classes, logisticregression__sample_weight=weights)
    return model.decision_function(unseen)


def recording_statistics(recording: Recording, normalization: str = "minmax") -> np.ndarray:
    """Mean over neurons of each of `STATISTICS`, then their standard deviation over neurons (ddof 0).

    Neurons that the curator rejected, or with a constant trace, NaN or infinite frames are left out, as from windows.

    Args:
        recording: At least one neuron must be left.
        normalization: "minmax" or "none", as the model's. For "zscore" min-max is used too: it tells no more than a
            z-scored trace does, but its mean and SD are not the same everywhere.

    Returns:
        float64 (10,).
    """
    recording = recording.accepted_neurons()
    finite = recording.traces[np.isfinite(recording.traces).all(1)]
    usable = finite[np.ptp(finite, axis=1) > 0]
    scaled = scale_traces(usable, "none" if normalization == "none" else "minmax")
    rows = [trace_statistics(trace, recording.sampling_rate, recording.segment_starts) for trace in scaled]
    return np.concatenate([np.mean(rows, axis=0), np.std(rows, axis=0)])


def trace_statistics(trace: np.ndarray, sampling_rate: float, segment_starts: Sequence[int] = (0,)) -> np.ndarray:
    """The five `STATISTICS` of one trace.

    Autocorrelation and noise take no pair of frames from two segments. The noise level is the median absolute
    difference between successive frames over the square root of the frame rate, which makes white noise in ΔF/F
    comparable between frame rates (Rupprecht et al. 2021, 10.1038/s41593-021-00895-5).

    Args:
        trace: (T,), finite and not constant.
        sampling_rate: Hz.
        segment_starts: Frames at which segments begin, from 0.

    Returns:
        float64 (5,); autocorrelation and noise are 0 where no segment is long enough for a pair.
    """
    trace = trace.astype(np.float64)
    deviation = trace - trace.mean()
    variance = np.mean(deviation**2)
    before, after = _pairs(deviation, max(1, round(sampling_rate)), segment_starts)
    autocorrelation = np.mean(before * after) / variance if len(before) else 0.0
    before, after = _pairs(trace, 1, segment_starts)
    noise = np.median(np.abs(after - before)) / np.sqrt(sampling_rate) if len(before) else 0.0
    return np.array([trace.mean(), np.sqrt(variance), np.mean(deviation**3) / variance**1.5, autocorrelation, noise])


def _pairs(trace: np.ndarray, lag: int, segment_starts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Values `lag` frames apart within a segment."""
    segments = np.split(trace, segment_starts[1:])
    return np.concatenate([s[:-lag] for s in segments]), np.concatenate([s[lag:] for s in segments])


def _undefined(row: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """Every score is a float; counts and names are not."""
    scores = {name: float("nan") for name, value in row.items() if isinstance(value, float)}
    return {**row, **scores, "undefined": reason, "calibration_undefined": reason}


def _row(level: str, scores: Mapping[str, Any]) -> dict[str, Any]:
    return {"level": level, "predictor": SIMPLE_STATISTICS, **scores}
