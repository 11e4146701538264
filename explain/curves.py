"""Deletion and insertion curves: how the log-odds of a class follow what is hidden of a window.

    whole = log_odds_of(model, windows.inputs, targets)
    explained = deletion_curve(model, windows, targets, importance_ranks(maps, windows.real), whole)
    at_random = deletion_curve(model, windows, targets, random_ranks(windows.real, seed=0), whole)
    print(over_subjects(area_between(explained, at_random), windows.subjects))

Shapes: n windows, T frames, S shares.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import t as student_t

from ..modeling_neurt import NeurtForSequenceClassification
from .explained import ExplainedWindows, hide, log_odds_of
from .recording_map import mean_in_cells

SHARES = np.array([0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8])
FEWEST_SUBJECTS = 3


@dataclass(frozen=True)
class Estimate:
    """A mean over subjects or a statistic of them, and its 95 % interval; the ends are None with too few subjects."""

    mean: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + ("" if self.low is None else f" (95 % interval {self.low:.2f} to {self.high:.2f})")

    def short(self) -> str:
        """For tables."""
        return f"{self.mean:.2f}" + ("" if self.low is None else f" [{self.low:.2f}, {self.high:.2f}]")

    def percent(self) -> str:
        """Of a share whose interval is known."""
        return f"{100 * self.mean:.0f} % [{100 * self.low:.0f}, {100 * self.high:.0f}]"


def over_subjects(values: np.ndarray, subjects: np.ndarray) -> Estimate:
    """The mean over subjects of each one's mean, and Student's interval for it.

    Not a bootstrap, which is too short for few subjects: of normal values with mean 0, simulated, its lower end is
    above 0 in 12 % of the studies with three subjects and in 5 % of those with eight, that of this one in 2 to 3 %.

    Args:
        values: Of windows, (n,).
        subjects: The animal of each, (n,).
    """
    names, places = np.unique(subjects, return_inverse=True)
    means = mean_in_cells(values, places, len(names))
    if len(names) < FEWEST_SUBJECTS:
        return Estimate(float(means.mean()), None, None)
    reach = student_t.ppf(0.975, len(names) - 1) * means.std(ddof=1) / np.sqrt(len(names))
    return Estimate(*(float(means.mean() + ends) for ends in (0, -reach, reach)))


def importance_ranks(maps: np.ndarray, real: np.ndarray) -> np.ndarray:
    """The place of each real frame in the order of importance, 0 for the most important.

    Frames of equal importance come in random order, or a map that says nothing would hide one frame after the other
    from the start, which takes more than to hide single ones. Equal maps have equal ranks.

    Args:
        maps: (n, T).
        real: Which frames are no padding; bool (n, T).

    Returns:
        int (n, T); padding has the last ranks.

    Raises:
        ValueError: If there is not a finite importance for each real frame.
    """
    if maps.shape != real.shape or not np.isfinite(maps[real]).all():
        unknown = f"of which {np.sum(~np.isfinite(maps))} are not finite"
        raise ValueError(f"expected a finite importance for each of {real.shape} frames, got {maps.shape}, {unknown}")
    ties = np.random.default_rng(0).random(maps.shape)
    order = np.lexsort((ties, np.where(real, -maps.astype(np.float64), np.inf)))
    return np.argsort(order, axis=1)


def random_ranks(real: np.ndarray, *, seed: int) -> np.ndarray:
    """`importance_ranks` of frames in random order."""
    return importance_ranks(np.random.default_rng(seed).random(real.shape), real)


def turned(maps: np.ndarray, real: np.ndarray, *, seed: int) -> np.ndarray:
    """Maps turned in time on the ring of their real frames, each by another number of frames, at least one.

    Args:
        maps: (n, T).
        real: Which frames are no padding; bool (n, T).
        seed: Of the turns.

    Returns:
        (n, T), the same at padding.
    """
    lengths = real.sum(1, keepdims=True)
    turns = np.random.default_rng(seed).integers(1, np.maximum(lengths, 2))
    frames = np.argsort(~real, axis=1, kind="stable")  # the real ones first, in order
    place = np.cumsum(real, axis=1) - 1
    from_where = np.take_along_axis(frames, (place - turns) % lengths, axis=1)
    return np.where(real, np.take_along_axis(maps, from_where, axis=1), maps)


def deletion_curve(
    model: NeurtForSequenceClassification,
    windows: ExplainedWindows,
    targets: np.ndarray,
    ranks: np.ndarray,
    start: np.ndarray,
) -> np.ndarray:
    """Log-odds of the targets with the first of the ranked frames hidden in all channels, at each of `SHARES`.

    Args:
        model: A classifier.
        windows: n of them.
        targets: Classes, int (n,).
        ranks: As of `importance_ranks`, (n, T).
        start: The log-odds at share 0, which every order has, (n,).

    Returns:
        float32 (n, S).
    """
    return _curve(model, windows, targets, ranks < _counts(windows.real), start)


def insertion_curve(
    model: NeurtForSequenceClassification,
    windows: ExplainedWindows,
    targets: np.ndarray,
    ranks: np.ndarray,
    start: np.ndarray,
) -> np.ndarray:
    """The same with all frames hidden but the first of the ranked ones; `start` is then with all hidden."""
    return _curve(model, windows, targets, ranks >= _counts(windows.real), start)


def _curve(
    model: NeurtForSequenceClassification,
    windows: ExplainedWindows,
    targets: np.ndarray,
    hidden: np.ndarray,
    start: np.ndarray,
) -> np.ndarray:
    """The curve (n, S) of what is hidden at each share but 0, (S - 1, n, T): all in as few batches as that takes."""
    inputs = {name: torch.cat(len(hidden) * [values]) for name, values in windows.inputs.items()}
    found = log_odds_of(model, hide(inputs, hidden.reshape(-1, hidden.shape[2])), np.tile(targets, len(hidden)))
    return np.column_stack([start, *found.reshape(len(hidden), -1)])


def _counts(real: np.ndarray) -> np.ndarray:
    """Frames of each window at each share but 0, (S - 1, n, 1)."""
    return np.rint(SHARES[1:, None, None] * real.sum(1, keepdims=True))


def area_between(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """The mean distance of two curves over the range of shares, in log-odds; (n, S) each to (n,)."""
    return np.trapezoid(upper - lower, SHARES, axis=1) / (SHARES[-1] - SHARES[0])
