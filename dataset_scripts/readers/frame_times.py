"""The sampling rate from the times of frames, and the segments that lost frames cut a recording into."""

from collections.abc import Callable

import numpy as np

_MOST_IRREGULAR = 0.05


def holes(steps: np.ndarray) -> np.ndarray:
    """Return which steps from frame to frame (T - 1,) are too long: a lost frame or a new trial lies between.

    Nothing runs on across more than one and a half of the usual step.
    """
    return steps > 1.5 * np.median(steps)


def segment_starts(after: np.ndarray) -> tuple[int, ...]:
    """Return the frames at which segments start: the first, and those after the steps that are holes."""
    return (0, *(np.flatnonzero(after) + 1).tolist())


def rate_of(steps: np.ndarray, refused: Callable[[str], ValueError]) -> float:
    """Return the sampling rate in Hz: one over the mean of the regular steps; the median of rounded times is biased.

    Args:
        steps: Seconds from frame to frame. Those from half to one and a half of their median are regular.
        refused: Makes the error from what was got.

    Raises:
        ValueError: If more than 5 % of the steps are irregular, or there are none.
    """
    if not len(steps):
        raise refused("a single frame")
    usual = float(np.median(steps))
    regular = abs(steps - usual) <= usual / 2
    irregular = 1 - regular.mean()
    if not usual > 0 or irregular > _MOST_IRREGULAR:
        raise refused(f"frame times that are irregular ({irregular:.0%} of the steps are far from {usual:.3g} s)")
    return 1 / float(steps[regular].mean())
