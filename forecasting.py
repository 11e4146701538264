"""Windows whose last frames are to be forecast, scaled by what was recorded before.

Min-max scaling over a whole recording tells the largest value that is still to come. Here the first part of each
recording sets the scale, and the frames to be forecast lie in the rest.
"""

import dataclasses
from collections.abc import Sequence

from .dataset_scripts.recording import Recording
from .dataset_scripts.windows import NoWindows, RecordingWindows, cut_windows
from .masking import FORECAST_SECONDS, forecast_mask
from .processing_neurt import MIN_FRAMES, NeurtProcessor

PAST_SHARE = 0.8


def past_frames(num_frames: int) -> int:
    """Leading frames of a recording that set its scale."""
    return round(PAST_SHARE * num_frames)


def forecast_bounds(
    num_frames: int,
    segment_starts: Sequence[int],
    length: int,
    sampling_rate: float,
    seconds: float = FORECAST_SECONDS,
) -> list[tuple[int, int]]:
    """First frame and end of windows whose hidden last frames lie behind the past that sets the scale.

    Hidden parts follow one another without overlap, from the end of each segment backwards.

    Args:
        num_frames: Frames T of the recording.
        segment_starts: Frames at which segments begin, from 0.
        length: Frames in a whole window.
        sampling_rate: Hz.
        seconds: Length of what is hidden; see `forecast_mask`.

    Returns:
        In order of time; none crosses a segment border, none is under `MIN_FRAMES`.
    """
    past = past_frames(num_frames)
    bounds = []
    for start, stop in zip(segment_starts, [*segment_starts[1:], num_frames], strict=True):
        end = stop
        while end - start >= MIN_FRAMES:
            first = max(start, end - length)
            hidden = int(forecast_mask(end - first, sampling_rate, seconds).sum())
            if end - hidden < past:
                break
            bounds.append((first, end))
            end -= hidden
    return sorted(bounds)


def cut_forecast_windows(recording: Recording, processor: NeurtProcessor, **options) -> RecordingWindows:
    """As `cut_windows`, but scaled by the past, and with the windows of `forecast_bounds`.

    Raises:
        NoWindows: If the recording gives none.
    """
    past = past_frames(recording.num_frames)
    windows = cut_windows(recording, processor, **options, scale_frames=past)
    bounds = forecast_bounds(
        recording.num_frames, recording.segment_starts, processor.window_length, recording.sampling_rate
    )
    if not bounds:
        raise NoWindows(
            f"no segment has {FORECAST_SECONDS:g} s to forecast behind the first {PAST_SHARE:.0%} of the recording"
        )
    return dataclasses.replace(windows, bounds=bounds)
