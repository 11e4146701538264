"""What is hidden throughout a window, predicted from what is visible: ridge regression and plain means.

Straight lines have nothing to hold on to where a channel is hidden in every frame. What stands beside a model there
is a linear map from the visible channels to the hidden ones, a few frames before and after included, and the mean of
that channel in other animals.

Sums of products are what a fit needs, so that fits to any union of recordings come from adding them up.

Shapes: n rows, F features, K targets, T frames, C channels.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from .evaluation import Baseline
from .masking import HIDDEN_CHANNELS

LAGS = 4  # frames before and after that the regression sees
PENALTIES = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)  # in units of a feature's variance
FITTED_SHARE = 0.75  # the rest, later frames, chooses the penalty
OTHERS = {"subject_id": "other animals", "recording_id": "other recordings", "roi_id": "other neurons"}


@dataclass(frozen=True)
class RidgeSums:
    """Sums over rows of features x and targets y.

    Args:
        n: Number of rows.
        x: (F,).
        y: (K,).
        xx: (F, F).
        xy: (F, K).
        yy: (K,), squares.
    """

    n: float
    x: np.ndarray
    y: np.ndarray
    xx: np.ndarray
    xy: np.ndarray
    yy: np.ndarray

    def __add__(self, other: "RidgeSums") -> "RidgeSums":
        return RidgeSums(*(getattr(self, name) + getattr(other, name) for name in vars(self)))

    def __sub__(self, other: "RidgeSums") -> "RidgeSums":
        return RidgeSums(*(getattr(self, name) - getattr(other, name) for name in vars(self)))


def ridge_sums(features: np.ndarray, targets: np.ndarray) -> RidgeSums:
    """Sums over rows of features (n, F) and targets (n, K), in float64."""
    features, targets = features.astype(np.float64), targets.astype(np.float64)
    return RidgeSums(
        len(features),
        features.sum(0),
        targets.sum(0),
        features.T @ features,
        features.T @ targets,
        np.square(targets).sum(0),
    )


def early_and_late_sums(features: np.ndarray, targets: np.ndarray) -> tuple[RidgeSums, RidgeSums]:
    """Sums over the first rows, to be fitted to, and over the later ones, which choose the penalty."""
    border = round(FITTED_SHARE * len(features))
    return ridge_sums(features[:border], targets[:border]), ridge_sums(features[border:], targets[border:])


def total(sums: Iterable[tuple[RidgeSums, RidgeSums]]) -> tuple[RidgeSums, RidgeSums]:
    """Early and late sums of several recordings."""
    (early, late), *others = sums
    for added_early, added_late in others:
        early, late = early + added_early, late + added_late
    return early, late


def fit_ridge(early: RidgeSums, late: RidgeSums) -> np.ndarray:
    """Ridge regression whose penalty, one for each target, predicts later rows best; then fitted to all rows.

    Returns:
        float64 (F + 1, K), the intercepts last.
    """
    candidates = solve_ridge(early, PENALTIES)
    errors = np.stack([squared_errors(late, coefficients) for coefficients in candidates])
    refitted = solve_ridge(early + late, PENALTIES)
    best = errors.argmin(0)
    return np.take_along_axis(refitted, best[None, None, :], axis=0)[0]


def solve_ridge(sums: RidgeSums, penalties: Sequence[float]) -> np.ndarray:
    """Ridge regression on standardised features: the penalty is on coefficients per standard deviation.

    The same as scikit-learn's `StandardScaler` and `Ridge(alpha=penalty * n)`.

    Returns:
        float64 (penalties, F + 1, K), the intercepts last.
    """
    mean_x, mean_y = sums.x / sums.n, sums.y / sums.n
    covariance = sums.xx / sums.n - np.outer(mean_x, mean_x)
    spread = np.sqrt(np.maximum(np.diagonal(covariance), 0))
    # A feature that does not vary has no say; rounding must not make one of it.
    used = spread > 1e-6 * np.maximum(np.abs(mean_x), 1e-6)
    scale = np.where(used, spread, 1.0)
    values, vectors = np.linalg.eigh(np.where(np.outer(used, used), covariance / np.outer(scale, scale), 0))
    cross = np.where(used[:, None], (sums.xy / sums.n - np.outer(mean_x, mean_y)) / scale[:, None], 0)
    rotated = vectors.T @ cross
    solutions = []
    for penalty in penalties:
        slopes = vectors @ (rotated / (np.maximum(values, 0) + penalty)[:, None]) / scale[:, None]
        solutions.append(np.concatenate([slopes, (mean_y - mean_x @ slopes)[None]]))
    return np.stack(solutions)


def squared_errors(sums: RidgeSums, coefficients: np.ndarray) -> np.ndarray:
    """Summed squared errors (K,) of a fit over the rows of `sums`."""
    slopes, intercepts = coefficients[:-1], coefficients[-1]
    quadratic = (slopes * (sums.xx @ slopes)).sum(0) + sums.n * intercepts**2 + 2 * intercepts * (sums.x @ slopes)
    return sums.yy - 2 * (slopes * sums.xy).sum(0) - 2 * intercepts * sums.y + quadratic


def apply_ridge(features: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Predictions (..., K) for features (..., F)."""
    return features @ coefficients[:-1] + coefficients[-1]


def lagged_features(channels: np.ndarray, lags: int = LAGS) -> np.ndarray:
    """Each frame with those before and after it; beyond the ends, the first and the last frame again.

    Args:
        channels: (T, C), the visible ones.
        lags: Frames on either side.

    Returns:
        (T, C * (2 * lags + 1)).
    """
    padded = np.pad(channels, ((lags, lags), (0, 0)), mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * lags + 1, axis=0).reshape(len(channels), -1)


def visible_and_hidden(task: str, num_channels: int) -> tuple[list[int], list[int]]:
    """Channels that a task leaves visible and those it hides for the whole window."""
    hidden = HIDDEN_CHANNELS[task]
    return [channel for channel in range(num_channels) if channel not in hidden], hidden


@dataclass(frozen=True)
class OthersFits:
    """Predictions of hidden channels, for each owner of windows from those of the others.

    Args:
        key: What the owners are: "subject_id", "recording_id" or "roi_id".
        visible: Channels that the task leaves visible.
        hidden: Channels that it hides.
        coefficients: Ridge regression by owner, as `fit_ridge` gives it.
        means: Means of the hidden channels by owner.
    """

    key: str
    visible: list[int]
    hidden: list[int]
    coefficients: dict[str, np.ndarray]
    means: dict[str, np.ndarray]

    def ridge(self, batch: Mapping[str, Any]) -> np.ndarray:
        """Predictions (B, T, C) from the visible channels of a batch; 0 in those."""
        result = np.zeros(batch["input_values"].shape)
        for b, owner in enumerate(batch[self.key]):
            frames = batch["input_values"][b][batch["attention_mask"][b].bool()].numpy()
            features = lagged_features(frames[:, self.visible])
            result[b, : len(frames), self.hidden] = apply_ridge(features, self.coefficients[owner]).T
        return result

    def mean(self, batch: Mapping[str, Any]) -> np.ndarray:
        """The means in place of the hidden channels, (B, T, C)."""
        result = np.zeros(batch["input_values"].shape)
        result[..., self.hidden] = np.stack([self.means[owner] for owner in batch[self.key]])[:, None]
        return result


def whole_channel_baselines(dataset: Dataset, task: str) -> dict[str, Baseline]:
    """Baselines of a task that hides whole channels, fitted to the windows of other animals than the one predicted.

    Where there is one animal, they are fitted to its other recordings, and of one recording, to its other neurons.

    Args:
        dataset: Windows with all channels, each with subject_id, recording_id and roi_id.
        task: One of `HIDDEN_CHANNELS`.

    Returns:
        The baselines by name.

    Raises:
        ValueError: If all windows are of one neuron.
    """
    first = dataset[0]
    key = next((key for key in OTHERS if any(window[key] != first[key] for window in _windows(dataset))), None)
    if key is None:
        raise ValueError(f"expected windows of several neurons, to fit the baselines of {task!r}, got those of one")
    visible, hidden = visible_and_hidden(task, first["input_values"].shape[1])
    sums = _sums_by_owner(_windows(dataset), key, visible, hidden)
    everything = total(sums.values())
    coefficients, means = {}, {}
    for owner, own in sums.items():
        early, late = (whole - part for whole, part in zip(everything, own, strict=True))
        coefficients[owner] = fit_ridge(early, late)
        means[owner] = (early.y + late.y) / (early.n + late.n)
    fits = OthersFits(key, visible, hidden, coefficients, means)
    return {f"ridge, {OTHERS[key]}": fits.ridge, f"mean, {OTHERS[key]}": fits.mean}


def _windows(dataset: Dataset) -> Iterator[Mapping[str, Any]]:
    """One after the other: all of them overlap, and are padded, so that together they may not fit into memory."""
    return (dataset[index] for index in range(len(dataset)))


def _sums_by_owner(
    windows: Iterable[Mapping[str, Any]], key: str, visible: list[int], hidden: list[int]
) -> dict[str, tuple[RidgeSums, RidgeSums]]:
    sums: dict[str, tuple[RidgeSums, RidgeSums]] = {}
    for window in windows:
        frames = window["input_values"][window["attention_mask"].astype(bool)]
        pair = early_and_late_sums(lagged_features(frames[:, visible]), frames[:, hidden])
        sums[window[key]] = total([sums[window[key]], pair]) if window[key] in sums else pair
    return sums
