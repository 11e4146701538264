"""The sampling rate from the times of frames, and the segments that lost frames cut a recording into."""

import numpy as np

from .source import missing_rate

_MOST_IRREGULAR = 0.05


def holes(steps: np.ndarray) -> np.ndarray:
    """Return which steps from frame to frame (T - 1,) are too long: a lost frame or a new trial lies between.

    Nothing runs on across more than one and a half of the usual step.
    """
    return steps > 1.5 * np.median(steps)


def segment_starts(after: np.ndarray) -> tuple[int, ...]:
    """Return the frames at which segments start: the first, and those after the steps that are holes."""
    return (0, *(np.flatnonzero(after) + 1).tolist())


def rate_of(steps: np.ndarray, file: str) -> float:
    """Return the sampling rate in Hz: one over the mean of the regular steps; the median of rounded times is biased.

    Args:
        steps: Seconds from frame to frame. Those from half to one and a half of their median are regular.
        file: What to name in the error.

    Raises:
        ValueError: If more than 5 % of the steps are irregular.
    """
    usual = float(np.median(steps))
    regular = abs(steps - usual) <= usual / 2
    if not usual > 0 or 1 - regular.mean() > _MOST_IRREGULAR:
        got = f"frame times that are irregular ({1 - regular.mean():.0%} of the steps are far from {usual:.3g} s)"
        raise missing_rate(file, got)
    return 1 / float(steps[regular].mean())
