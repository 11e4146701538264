"""Maps of windows put together to one of a whole recording: neurons × time, and what each neuron contributes.

    windows = gather(dataset, rows)
    maps = relative_weights(pooling_attention(model, windows, targets), windows.real)
    values = recording_map(maps, windows, recording)
    order = row_order(values, "importance")

Shapes: n windows, T frames of a window, N neurons of the recording, F frames of the recording.
"""

import numpy as np

from ..dataset_scripts.recording import Recording
from .explained import ExplainedWindows

SORT_ORDERS = ("importance", "position", "first peak", "as given")


def relative_weights(weights: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Weights that sum to 1 in each window, as multiples of the average weight there.

    A frame of a short, padded window has a larger share than the same frame in a long one. Times the number of real
    frames, 1 is the weight of an average frame in every window. What remains relative is each window to itself: the
    weights do not tell which window matters more.

    Args:
        weights: (n, T), such as those of `attention`.
        real: Which frames are no padding; bool (n, T).

    Returns:
        (n, T), mean 1 over the real frames of each window.
    """
    return weights * real.sum(1, keepdims=True)


def recording_map(values: np.ndarray, windows: ExplainedWindows, recording: Recording) -> np.ndarray:
    """Lay the windows of one recording side by side; where they overlap, their mean.

    Args:
        values: Maps of the windows, (n, T).
        windows: Where they are from; those of other recordings are left out.
        recording: The recording; neurons that its curator rejected have no windows and no row.

    Returns:
        float64 (N, F), N accepted neurons; NaN where no window is.

    Raises:
        ValueError: If the windows hold nothing of the recording, or lie outside of it.
    """
    mine, recording = _windows_of(recording, windows), recording.accepted_neurons()
    shape = recording.traces.shape
    frames = windows.start_frame[mine, None] + np.arange(values.shape[1])
    neurons, real = windows.neuron_index[mine, None], windows.real[mine]
    if neurons.max() >= shape[0] or frames[real].max() >= shape[1]:
        raise ValueError(
            f"expected windows within the {shape[0]} neurons and {shape[1]} frames of {recording.recording_id!r}, got "
            f"neuron {neurons.max()} and frame {frames[real].max()}; explain windows of the same recording"
        )
    cells = (neurons * shape[1] + frames)[real]
    return mean_in_cells(values[mine][real], cells, recording.traces.size).reshape(shape)


def row_order(values: np.ndarray, by: str, centroids: np.ndarray | None = None) -> np.ndarray:
    """Sort the neurons of a map.

    Args:
        values: (N, F), NaN where no window is.
        by: "importance", the largest mean of a row first; "position", from top to bottom of the field as an image
            shows it (y, then x), so that rows lie as on a map of the ROIs beside them; "first peak", by the frame at
            which a row is first at its maximum; "as given".
        centroids: Positions (x, y), (N, 2), for "position".

    Returns:
        int (N,), rows in their new order; those without windows, or without a position, come last.

    Raises:
        ValueError: If there is no such order, or there are no positions to sort by.
    """
    if by not in SORT_ORDERS:
        raise ValueError(f"expected an order among {', '.join(SORT_ORDERS)}, got {by!r}")
    if by == "as given":
        return np.arange(len(values))
    if by == "position":
        if centroids is None or not np.isfinite(centroids).any():
            raise ValueError('expected centroids to sort neurons by position, got none; sort by "importance" instead')
        return np.lexsort((centroids[:, 0], centroids[:, 1]))
    known = ~np.isnan(values)
    if by == "importance":
        rows = np.nonzero(known)[0]
        return np.argsort(-mean_in_cells(values[known], rows, len(values)), kind="stable")
    peaks = np.where(known, values, -np.inf).argmax(1)
    return np.lexsort((peaks, ~known.any(1)))


def contributions(log_odds: np.ndarray, windows: ExplainedWindows, recording: Recording) -> np.ndarray:
    """What each neuron says of a class, beyond what the neurons of its recording say on average.

    A recording's log-odds are the mean over its windows, so these are what a neuron adds to or takes from them. They
    sum to 0, and tell neurons of one recording apart, not recordings.

    Args:
        log_odds: Of one and the same class in all windows, (n,); see `explained.log_odds_of`.
        windows: Where they are from; those of other recordings are left out.
        recording: The recording.

    Returns:
        float64 (N,), the mean over each accepted neuron's windows minus the mean over neurons; NaN without windows.

    Raises:
        ValueError: If the windows hold nothing of the recording.
    """
    mine, neurons = _windows_of(recording, windows), int(recording.accepted.sum())
    means = mean_in_cells(log_odds[mine], windows.neuron_index[mine], neurons)
    return means - np.nanmean(means)


def mean_in_cells(values: np.ndarray, cells: np.ndarray, size: int) -> np.ndarray:
    """The mean of the values that lie in each cell; float64 (size,), NaN in cells without any.

    Args:
        values: (n,).
        cells: Where each value lies; int (n,), from 0 to below `size`.
        size: Number of cells.
    """
    sums, counts = np.bincount(cells, values, minlength=size), np.bincount(cells, minlength=size)
    return np.divide(sums, counts, out=np.full(size, np.nan), where=counts > 0)


def _windows_of(recording: Recording, windows: ExplainedWindows) -> np.ndarray:
    """Which windows are of a recording; bool (n,)."""
    mine = np.array(windows.recording_ids)[windows.recording] == recording.recording_id
    if not mine.any():
        raise ValueError(f"expected windows of recording {recording.recording_id!r}, got none; gather some of it")
    return mine
