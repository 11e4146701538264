"""Features of recordings that need no pretrained model: what the model has to be better than.

    rows = [channel_features(*each) for each in zip(recordings, dataset.by_recording, strict=True)]
    features = columns_of_all(np.stack(rows))

    features = minirocket_features(windows_of_recordings(dataset, cohort.recording_ids))

`baselines.recording_statistics` are the simplest; these see the neighbour channels too. All are taken of traces scaled
as the model sees them, and none sees a label.

Symbols: R recordings, F features, n windows of a recording, N neurons, T frames, L frames in a window, C channels (5).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..baselines import NEURON_BLOCK, at_lag, autocorrelations
from ..dataset_scripts.recording import Recording
from ..dataset_scripts.windows import RecordingWindows
from ..sampling import evenly_spaced

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Octaves of time tell what a spectrum in octave bands does, and short segments need no tapering.
LAGS = (0.25, 0.5, 1.0, 2.0, 4.0)
CHANNEL_FEATURES = (
    *(f"{quantile:g} quantile" for quantile in QUANTILES),
    *(f"autocorrelation at {lag:g} s" for lag in LAGS),
    "mean of near SD",
    "mean of far SD",
    "SD of near mean",
    "SD of far mean",
    "correlation with near mean",
    "correlation with far mean",
)
# 84 kernels with four biases each. More features would make each fit of a permutation test slower; of the two real
# cohorts tried, 10,000 told no more.
MINIROCKET_FEATURES = 336
# Windows of each recording that MiniRocket's biases are drawn from.
MOST_FITTED = 100


def channel_features(recording: Recording, windows: RecordingWindows) -> np.ndarray:
    """Mean over neurons of each of `CHANNEL_FEATURES`, then their standard deviation over neurons (ddof 0).

    Quantiles and autocorrelations are of the own trace; means and SDs of the neighbour channels are over frames. No
    pair of frames is taken from two segments.

    Args:
        recording: Says when frames were taken.
        windows: Of this recording; they hold its scaled traces and neighbour channels.

    Returns:
        float64 (32,); NaN for a lag that no segment lasts, and for neighbour channels where no neuron has any.
    """
    blocks = np.array_split(windows.neurons, -(-len(windows.neurons) // NEURON_BLOCK))
    rows = [_of_neurons(windows.channels[block].astype(np.float64), recording) for block in blocks]
    known = [column[~np.isnan(column)] for column in np.concatenate(rows).T]
    return np.array([*map(_mean, known), *map(_spread, known)])


def columns_of_all(features: np.ndarray) -> np.ndarray:
    """Features (R, F) without those that are NaN for some recording: what only some have says which those are."""
    return features[:, ~np.isnan(features).any(axis=0)]


def windows_of_recordings(dataset: Iterable[Mapping[str, Any]], recording_ids: Sequence[str]) -> list[np.ndarray]:
    """The windows of each recording as `minirocket_features` takes them.

    Args:
        dataset: Windows as `WindowDataset` gives them, of these recordings.
        recording_ids: (R,), the order of what is returned.

    Raises:
        ValueError: If a recording has none.
    """
    found: dict[str, list[np.ndarray]] = {name: [] for name in recording_ids}
    for window in dataset:
        absent = window.get("bool_masked_pos", False) | (window["attention_mask"] == 0)[:, None]
        found[window["recording_id"]].append(np.where(absent, np.float32(np.nan), window["input_values"]))
    without = [name for name, windows in found.items() if not windows]
    if without:
        raise ValueError(f"expected windows of each recording, got none of {without[0]!r}; leave it out")
    return [np.stack(windows) for windows in found.values()]


def minirocket_features(
    windows: Sequence[np.ndarray], seed: int = 0, progress: Callable[[Iterable], Iterable] = iter
) -> np.ndarray:
    """The mean over each recording's windows of their MiniRocket transform.

    MiniRocket (Dempster et al. 2021, 10.1145/3447548.3467231) as in sktime: how often fixed convolutions of random
    channels exceed a bias. It wants windows of one length: they are cut to the one that uses most frames of those that
    each recording reaches, and channels that some recording lacks are left out.

    The biases are quantiles of convolved windows, and those are of all recordings, the same number of each, held-out
    ones included; drawing them anew in each fold would mean transforming everything anew in each fold of each
    permutation. That leaks nothing that counts: no label is seen, so the features are the same however labels are
    dealt out, a permutation test of them stays exact, and without an effect the expected AUC stays 0.5. What a
    baseline gains by having seen the inputs it is tested on makes it harder to beat, not easier.

    Args:
        windows: For each recording float32 (n, L, C), NaN beyond the end of a short window and in absent channels.
        seed: Of the channels and windows that MiniRocket picks.
        progress: Wrapped around the recordings, for a progress bar.

    Returns:
        float64 (R, 336).

    Raises:
        ValueError: If sktime or numba is not installed, or no window of a recording has the channels that all have.
    """
    transform = _minirocket(seed)
    pieces = _alike(windows)
    state = np.random.get_state()  # which fitting seeds
    transform.fit(np.concatenate([rows[evenly_spaced(len(rows), MOST_FITTED)] for rows in pieces]))
    np.random.set_state(state)
    return np.stack([transform.transform(rows).to_numpy().mean(axis=0, dtype=np.float64) for rows in progress(pieces)])


def _of_neurons(channels: np.ndarray, recording: Recording) -> np.ndarray:
    """`CHANNEL_FEATURES` of neurons (N, T, C) -> (N, 16)."""
    own, near_mean, near_spread, far_mean, far_spread = np.moveaxis(channels, 2, 0)
    correlations = autocorrelations(own, recording.segment_starts)
    return np.column_stack(
        [
            *np.quantile(own, QUANTILES, axis=1),
            *(at_lag(correlations, recording.sampling_rate, lag) for lag in LAGS),
            near_spread.mean(axis=1),
            far_spread.mean(axis=1),
            near_mean.std(axis=1),
            far_mean.std(axis=1),
            _correlation(own, near_mean),
            _correlation(own, far_mean),
        ]
    )


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each row, 0 where one does not vary."""
    a, b = (rows - rows.mean(axis=1, keepdims=True) for rows in (a, b))
    spreads = np.sqrt(np.sum(a**2, axis=1) * np.sum(b**2, axis=1))
    return np.divide(np.sum(a * b, axis=1), spreads, out=np.zeros(len(a)), where=spreads != 0)


def _mean(values: np.ndarray) -> float:
    return values.mean() if len(values) else np.nan


def _spread(values: np.ndarray) -> float:
    return values.std() if len(values) else np.nan


def _alike(windows: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Windows with all the channels that each recording has, cut to one length: (n, C, L) of each recording."""
    channels = np.all([(~np.isnan(rows[:, 0])).any(axis=0) for rows in windows], axis=0)
    complete = [rows[~np.isnan(rows[:, 0, channels]).any(axis=1)][:, :, channels] for rows in windows]
    lengths = [np.sum(~np.isnan(rows[:, :, 0]), axis=1) for rows in complete]
    if not all(map(len, lengths)):
        raise ValueError("expected windows with the channels that all recordings have, got a recording without any")
    reached = np.unique(np.concatenate(lengths))
    reached = reached[reached <= min(map(max, lengths))]
    used = [length * sum(np.sum(each >= length) for each in lengths) for length in reached]
    length = reached[int(np.argmax(used))]
    return [rows[each >= length, :length].transpose(0, 2, 1) for rows, each in zip(complete, lengths, strict=True)]


def _minirocket(seed: int):
    """An unfitted transform. Importing it here, for it takes seconds and few need it."""
    try:
        from sktime.transformations.rocket import MiniRocketMultivariate

        return MiniRocketMultivariate(MINIROCKET_FEATURES, random_state=seed)
    except ImportError as error:
        raise ValueError(
            "expected the packages sktime and numba for MiniRocket, found none: pip install neurt[minirocket]"
        ) from error
