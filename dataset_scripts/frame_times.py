"""The sampling rate from the times of frames, and the segments that lost frames cut a recording into."""

from collections.abc import Callable

import numpy as np

_MOST_IRREGULAR = 0.05


def holes(steps: np.ndarray) -> np.ndarray:
    """Return which steps from frame to frame (T - 1,) are too long: a lost frame or a new trial lies between.

    Nothing runs on across more than one and a half of the usual step.
    """
    return steps > 1.5 * (np.median(steps) if len(steps) else 0)


def segment_starts(after: np.ndarray) -> tuple[int, ...]:
    """Return the frames at which segments start: the first, and those after the steps that are holes."""
    return (0, *(np.flatnonzero(after) + 1).tolist())


def irregularity(steps: np.ndarray) -> str | None:
    """Return why steps from frame to frame give no sampling rate; None if they do, as up to 5 % may be irregular.

    Those from half to one and a half of their median are regular.
    """
    if not len(steps):
        return "a single frame"
    usual, irregular = float(np.median(steps)), 1 - _are_regular(steps).mean()
    if not usual > 0 or irregular > _MOST_IRREGULAR:
        return f"frame times that are irregular ({irregular:.0%} of the steps are far from {usual:.3g} s)"
    return None


def rate_of(steps: np.ndarray, refused: Callable[[str], ValueError]) -> float:
    """Return the sampling rate in Hz: one over the mean of the regular steps; the median of rounded times is biased.

    Args:
        steps: Seconds from frame to frame.
        refused: Makes the error from what was got, see `irregularity`.
    """
    problem = irregularity(steps)
    if problem:
        raise refused(problem)
    return 1 / float(steps[_are_regular(steps)].mean())


def _are_regular(steps: np.ndarray) -> np.ndarray:
    usual = np.median(steps)
    return abs(steps - usual) <= usual / 2
