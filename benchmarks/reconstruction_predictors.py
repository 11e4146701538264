"""Every predictor of the reconstruction benchmark: a function from windows to values (B, L, C).

What is fitted, is fitted twice: "of others" to other animals (in a set of one animal, to other neurons) recorded at a
similar rate, and "own past" to what is visible of the same neuron: the frames before the window, and those in it.
Where there are too few of those, "own past" takes what the others gave.

Shapes: B windows, L frames of a window, T of a recording, C channels, H frames to be forecast.
"""

import functools
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from neurt.channel_baselines import (
    apply_ridge,
    early_and_late_sums,
    fit_ridge,
    lagged_features,
    total,
    visible_and_hidden,
)
from neurt.evaluation import linear_interpolation, visible_mean
from neurt.modeling_neurt import NeurtForMaskedSignalModeling
from neurt.processing_neurt import CHANNELS
from neurt.sampling import evenly_spaced
from reconstruction_autoregression import fill_autoregression, fit_autoregression, lag_products, separated
from reconstruction_smoothers import copy_last, cubic_spline, smooth_by_gaussian_process
from reconstruction_windows import WHOLE_CHANNEL, Field, Windows, mask_name

MODEL, PUBLISHED = "model", "published checkpoint"
CALIBRATED = "model, level and size from others"
INTERPOLATION, CUBIC, GAUSSIAN_PROCESS = "linear interpolation", "cubic spline", "Gaussian process"
COPY_LAST, WINDOW_MEAN, MEAN_OF_OTHERS = "copy-last", "window mean", "mean of others"
AR_OTHERS, AR_OWN = "autoregression, of others", "autoregression, own past"
RIDGE_OTHERS, RIDGE_OWN = "ridge, of others", "ridge, own past"

BATCH_SIZE = 128
SIMILAR_RATE = 1.25  # others count as recorded alike if their rate differs by no more than this factor
MOST_ROWS = 200_000  # of one recording in a fit to others
MOST_PAST = 4096  # frames of a neuron's own past in a fit
FEWEST_ROWS = 64  # of the own past, for a fit of its own
FORECAST_FRAMES = 8  # last visible frames that the ridge forecast sees

Predictor = Callable[[Windows], np.ndarray]


def predictors(task: str, models: dict[str, NeurtForMaskedSignalModeling]) -> dict[str, Predictor]:
    """The models and the baselines that make sense for a task, by name."""
    chosen: dict[str, Predictor] = {
        name: lambda windows, model=model: reconstruct(model, windows) for name, model in models.items()
    }
    if task in WHOLE_CHANNEL:
        if MODEL in models:
            chosen[MODEL] = functools.cache(chosen[MODEL])  # once for both
            chosen[CALIBRATED] = lambda windows: calibrated(chosen[MODEL](windows), windows, task)
        ridge = functools.partial(whole_channel_ridge, task=task)
        return {**chosen, MEAN_OF_OTHERS: mean_of_others, **_fitted_twice(ridge, RIDGE_OTHERS, RIDGE_OWN)}
    if task == "span":
        chosen |= {INTERPOLATION: _of_windows(linear_interpolation), CUBIC: _of_windows(cubic_spline)}
    chosen |= {GAUSSIAN_PROCESS: smoothed, **_fitted_twice(autoregression, AR_OTHERS, AR_OWN)}
    if task == "forecast":
        chosen |= _fitted_twice(ridge_forecast, RIDGE_OTHERS, RIDGE_OWN)
    return {**chosen, COPY_LAST: _of_windows(copy_last), WINDOW_MEAN: _of_windows(visible_mean)}


def _of_windows(fill: Callable[[np.ndarray], np.ndarray]) -> Predictor:
    """What knows nothing but the visible values of a window."""
    return lambda windows: fill(windows.shown)


def _fitted_twice(predict: Callable[..., np.ndarray], others: str, own: str) -> dict[str, Predictor]:
    """What is fitted to others and to the own past, by the names of both."""
    return {others: functools.partial(predict, own=False), own: functools.partial(predict, own=True)}


@torch.inference_mode()
def reconstruct(model: NeurtForMaskedSignalModeling, windows: Windows) -> np.ndarray:
    """The model's reconstruction; channels that the set lacks are hidden from it."""
    num_windows, num_frames, num_channels = windows.values.shape
    values = np.zeros((num_windows, num_frames, len(CHANNELS)), dtype=np.float32)
    values[..., :num_channels] = windows.values
    hidden = np.repeat(windows.real[..., None], len(CHANNELS), axis=2)
    hidden[..., :num_channels] = windows.hidden
    inputs = {
        "input_values": values,
        "attention_mask": windows.real.astype(np.int64),
        "bool_masked_pos": hidden,
        "sampling_rate": windows.sampling_rate.astype(np.float32),
    }
    tensors = {name: torch.from_numpy(array).split(BATCH_SIZE) for name, array in inputs.items()}
    batches = (dict(zip(tensors, parts, strict=True)) for parts in zip(*tensors.values(), strict=True))
    results = [model(**{name: part.to(model.device) for name, part in batch.items()}) for batch in batches]
    return torch.cat([result.reconstruction for result in results]).cpu().numpy()[..., :num_channels]


def calibrated(prediction: np.ndarray, windows: Windows, task: str) -> np.ndarray:
    """A prediction of whole channels, mapped linearly as fits the windows of the others best.

    Ridge regression of others knows at which level and with which spread a channel of this set lies; a model that is
    given nothing but one window cannot. Each hidden channel becomes a linear function of the predictions of all.

    Args:
        prediction: (B, L, C).
        windows: What was predicted.
        task: One of `WHOLE_CHANNEL`.
    """
    _, hidden = visible_and_hidden(mask_name(task), windows.values.shape[2])
    parts: list[dict[Hashable, list]] = [{} for _ in windows.fields]
    for b, (index, neuron) in enumerate(_owners(windows)):
        frames = windows.real[b]
        pair = early_and_late_sums(prediction[b, frames][:, hidden], windows.values[b, frames][:, hidden])
        parts[index].setdefault(windows.fields[index].groups[neuron], []).append(pair)
    summed = [{group: total(pairs) for group, pairs in part.items()} for part in parts]
    fitted = of_others(windows.fields, summed, total, lambda sums: fit_ridge(*sums))
    result = prediction.copy()
    for b, (index, neuron) in enumerate(_owners(windows)):
        coefficients = fitted(index, windows.fields[index].groups[neuron])
        result[b][:, hidden] = apply_ridge(prediction[b][:, hidden], coefficients)
    return result


def smoothed(windows: Windows) -> np.ndarray:
    """Gaussian processes, their kernels chosen for each recording."""
    shown, result = windows.shown, np.empty(windows.values.shape)
    for index in np.unique(windows.field):
        rows = windows.field == index
        result[rows] = smooth_by_gaussian_process(shown[rows])
    return result


def of_others(fields: Sequence[Field], parts: Sequence[dict], combine: Callable[[Iterable], Any], fit: Callable):
    """For each recording and group, what is fitted to the other groups at a similar rate, or else at any.

    Args:
        fields: The recordings.
        parts: For each recording, what each of its groups contributes.
        combine: Adds contributions up.
        fit: Makes the fit from the sum.

    Returns:
        A function of (field index, group).
    """
    known: dict[tuple, Any] = {}

    def fitted(index: int, group: Hashable):
        rate = fields[index].sampling_rate
        if (group, rate) not in known:
            others = [
                (max(rate, field.sampling_rate) / min(rate, field.sampling_rate), part)
                for field, by_group in zip(fields, parts, strict=True)
                for other, part in by_group.items()
                if other != group
            ]
            similar = [part for ratio, part in others if ratio <= SIMILAR_RATE]
            known[group, rate] = fit(combine(similar or [part for _, part in others]))
        return known[group, rate]

    return fitted


def by_group(field: Field, contribution: Callable[[np.ndarray], Any], combine: Callable[[Iterable], Any]) -> dict:
    """What each group of a recording's neurons contributes, from an even choice of them.

    Args:
        field: The recording.
        contribution: Of one neuron's past (T, C).
        combine: Adds contributions up.
    """
    most = max(1, MOST_ROWS // field.past)
    chosen = evenly_spaced(len(field.channels), most)
    contributions: dict[Hashable, list] = {}
    for neuron in chosen:
        found = contribution(field.channels[neuron, : field.past])
        contributions.setdefault(field.groups[neuron], []).append(found)
    return {group: combine(found) for group, found in contributions.items()}


def _sum_pairs(pairs: Iterable[tuple]) -> tuple:
    first, second = zip(*pairs, strict=True)
    return sum(first), sum(second)


def mean_of_others(windows: Windows) -> np.ndarray:
    """Each channel's mean over the other animals."""
    parts = [
        by_group(field, lambda past: (past.sum(0, dtype=np.float64), len(past)), _sum_pairs)
        for field in windows.fields
    ]
    mean = of_others(windows.fields, parts, _sum_pairs, lambda sums: sums[0] / sums[1])
    rows = [mean(index, windows.fields[index].groups[neuron]) for index, neuron in _owners(windows)]
    return np.broadcast_to(np.stack(rows)[:, None], windows.values.shape)


def _owners(windows: Windows) -> list[tuple[int, int]]:
    """Recording and neuron of each window."""
    return list(zip(windows.field.tolist(), windows.neuron.tolist(), strict=True))


def past_segment_starts(field: Field, first: int, stop: int) -> list[int]:
    """Segment starts of the frames from `first` to `stop`, counted from `first`; the first is 0."""
    return [0, *(start - first for start in field.segment_starts if first < start < stop)]


# Autoregression.


def coefficients_of_others(windows: Windows) -> np.ndarray:
    """Autoregressions (B, C, p) fitted to others."""

    def contributions(field: Field) -> dict:
        starts = past_segment_starts(field, 0, field.past)
        return by_group(field, lambda past: lag_products(separated(past, starts)), _sum_pairs)

    parts = [contributions(field) for field in windows.fields]
    fitted = of_others(windows.fields, parts, _sum_pairs, lambda sums: fit_autoregression(*sums))
    return np.stack([fitted(index, windows.fields[index].groups[neuron]) for index, neuron in _owners(windows)])


def coefficients_of_own_past(windows: Windows) -> np.ndarray:
    """Autoregressions (B, C, p) fitted to the own past and to what is visible of the window."""
    shown = windows.shown
    products, counts = zip(*(_own_products(windows, b, shown[b]) for b in range(len(windows))), strict=True)
    counts = np.array(counts)
    own = fit_autoregression(np.stack(products), counts[:, None])
    enough = (counts >= FEWEST_ROWS)[:, None, None]
    return own if enough.all() else np.where(enough, own, coefficients_of_others(windows))


def _own_products(windows: Windows, b: int, shown: np.ndarray) -> tuple[np.ndarray, int]:
    field, first = windows.fields[windows.field[b]], int(windows.first[b])
    start = max(0, first - MOST_PAST)
    series = np.concatenate([field.channels[windows.neuron[b], start:first], shown[windows.real[b]]])
    return lag_products(separated(series, past_segment_starts(field, start, start + len(series))))


def autoregression(windows: Windows, own: bool) -> np.ndarray:
    """What is hidden, filled by an autoregression of the own past or of others."""
    shown = windows.shown
    coefficients = coefficients_of_own_past(windows) if own else coefficients_of_others(windows)
    filled = [fill_autoregression(shown[..., c], coefficients[:, c]) for c in range(shown.shape[2])]
    return np.stack(filled, axis=2)


# Ridge regression.


def ridge_coefficients(windows: Windows, stops: np.ndarray, rows: Callable, own: bool) -> list[np.ndarray]:
    """A fit for each window: to its own past where that has enough rows, or else to others.

    Args:
        windows: What is to be predicted.
        stops: int (B,), the frame of the recording at which a window's own past ends.
        rows: Features and targets of a segment (T, C).
        own: Whether to fit to the own past at all.
    """

    def sums(field: Field, past: np.ndarray, start: int = 0):
        starts = past_segment_starts(field, start, start + len(past))
        parts = [rows(segment) for segment in np.split(past, starts[1:])]
        return early_and_late_sums(*map(np.concatenate, zip(*parts, strict=True)))

    parts = [by_group(field, lambda past, field=field: sums(field, past), total) for field in windows.fields]
    others = of_others(windows.fields, parts, total, lambda found: fit_ridge(*found))
    coefficients = []
    for (index, neuron), stop in zip(_owners(windows), stops.tolist(), strict=True):
        field, start = windows.fields[index], max(0, stop - MOST_PAST)
        pair = sums(field, field.channels[neuron, start:stop], start) if own and stop - start >= FEWEST_ROWS else None
        enough = pair is not None and pair[0].n + pair[1].n >= FEWEST_ROWS
        coefficients.append(fit_ridge(*pair) if enough else others(index, field.groups[neuron]))
    return coefficients


def whole_channel_ridge(windows: Windows, task: str, own: bool) -> np.ndarray:
    """Hidden channels from the visible ones."""
    visible, hidden = visible_and_hidden(mask_name(task), windows.values.shape[2])

    def rows(segment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return lagged_features(segment[:, visible]), segment[:, hidden]

    coefficients = ridge_coefficients(windows, windows.first, rows, own)
    result = np.zeros(windows.values.shape)
    for b, frames in enumerate(windows.real.sum(1)):
        features = lagged_features(windows.values[b, :frames, visible].T)
        result[b, :frames, hidden] = apply_ridge(features, coefficients[b]).T
    return result


def forecast_rows(segment: np.ndarray, horizon: int, window_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """The last visible frames and the frames that follow, from everywhere in a segment, relative to a running mean.

    The mean is that of as many frames before as a window shows, so that a strong penalty leaves the window's mean.

    Args:
        segment: (T, C).
        horizon: Frames H to be forecast.
        window_frames: Visible frames of a window.

    Returns:
        Features (n, C * `FORECAST_FRAMES`) and targets (n, C * H).
    """
    num_channels = segment.shape[1]
    now = np.arange(FORECAST_FRAMES, len(segment) - horizon + 1)
    if not len(now):
        return np.zeros((0, num_channels * FORECAST_FRAMES)), np.zeros((0, num_channels * horizon))
    start = np.maximum(now - window_frames, 0)
    sums = np.concatenate([np.zeros((1, num_channels)), np.cumsum(segment, axis=0, dtype=np.float64)])
    level = (sums[now] - sums[start]) / (now - start)[:, None]
    rows = np.lib.stride_tricks.sliding_window_view(segment, FORECAST_FRAMES + horizon, axis=0) - level[..., None]
    return rows[..., :FORECAST_FRAMES].reshape(len(now), -1), rows[..., FORECAST_FRAMES:].reshape(len(now), -1)


def ridge_forecast(windows: Windows, own: bool) -> np.ndarray:
    """The hidden last frames from the last visible ones."""
    result = np.zeros(windows.values.shape)
    horizons, ends = windows.hidden[..., 0].sum(1), windows.first + windows.real.sum(1)
    for horizon in np.unique(horizons).tolist():
        some = np.flatnonzero(horizons == horizon)
        rows = functools.partial(forecast_rows, horizon=horizon, window_frames=windows.values.shape[1] - horizon)
        coefficients = ridge_coefficients(windows.only(some), ends[some] - horizon, rows, own)
        for row, fitted in zip(some, coefficients, strict=True):
            stop = int(windows.real[row].sum())
            shown = windows.values[row, : stop - horizon]
            level = shown.mean(0)
            future = apply_ridge((shown[-FORECAST_FRAMES:] - level).T.reshape(-1), fitted)
            result[row, stop - horizon : stop] = level + future.reshape(-1, horizon).T
    return result
