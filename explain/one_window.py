"""One window of a build, found by recording, neuron and time, with frames of it hidden on purpose or not."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..dataset_scripts.build_manifest import read_manifest
from ..dataset_scripts.parquet_rows import read_recording
from ..dataset_scripts.recording import Recording
from ..dataset_scripts.windows import RecordingWindows, cut_windows
from ..dataset_scripts.wording import some
from ..masking import collate_windows, span_mask
from ..processing_neurt import MIN_FRAMES, NeurtProcessor, make_window
from .explained import hide


@dataclass(frozen=True, eq=False)
class OneWindow:
    """A window, and where it is from.

    Args:
        inputs: A batch of this window alone, with `start_frame`, `recording_id`, `subject_id` and `roi_id`.
        recording: The recording.
    """

    inputs: Mapping[str, Any]
    recording: Recording

    @property
    def roi_id(self) -> str:
        return self.inputs["roi_id"][0]

    @property
    def start_frame(self) -> int:
        return int(self.inputs["start_frame"][0])

    @property
    def start(self) -> float:
        """Seconds of the recording at which the window begins."""
        return self.start_frame / self.recording.sampling_rate

    @property
    def end(self) -> float:
        return (self.start_frame + self.num_frames) / self.recording.sampling_rate

    @property
    def num_frames(self) -> int:
        """Frames that are no padding."""
        return int(self.inputs["attention_mask"].sum())

    def with_hidden_spans(self, seed: int) -> "OneWindow":
        """The same window with spans of frames hidden from the model, as in training.

        Raises:
            ValueError: If the seed is below 0.
        """
        if seed < 0:
            raise ValueError(f"expected a seed of at least 0, got {seed}")
        hidden = np.zeros(self.inputs["attention_mask"].shape, dtype=bool)
        hidden[:, : self.num_frames] = span_mask(self.num_frames, np.random.default_rng(seed))
        return replace(self, inputs=hide(self.inputs, hidden))


def find_window(
    build: str | Path,
    processor: NeurtProcessor,
    *,
    recording: str | None = None,
    neuron: str | None = None,
    start: float | None = None,
    missing_neighbours: str = "error",
) -> OneWindow:
    """Read one window out of a build.

    Args:
        build: Parquet build.
        processor: Cuts it.
        recording: recording_id; by default the first of the build.
        neuron: roi_id; by default the first that gives windows.
        start: Seconds of the recording at which the window begins, any; by default those of its first window.
        missing_neighbours: "mask" to use a recording without positions as well.

    Raises:
        ValueError: If the build cannot be read, or has no such recording, neuron or time.
    """
    found = _find_recording(build, recording)
    windows = cut_windows(found, processor, missing_neighbours=missing_neighbours)
    neuron_index = _find_neuron(windows, neuron)
    first, end = windows.bounds[0] if start is None else _bounds(found, start, processor.window_length)
    window = make_window(windows.channels[neuron_index], first, end, processor.window_length)
    where = {"roi_id": windows.roi_ids[neuron_index], "neuron_index": neuron_index, "start_frame": first}
    return OneWindow(collate_windows([{**window, **windows.shared, **where}]), found)


def _find_recording(build: str | Path, name: str | None) -> Recording:
    files = {entry["recording_id"]: entry for entry in read_manifest(build)["files"]}
    if name is not None and name not in files:
        raise ValueError(f"expected a recording among {some(sorted(files))}, got {name!r}")
    entry = files[min(files) if name is None else name]
    return read_recording(Path(build) / entry["path"], entry["source"])


def _find_neuron(windows: RecordingWindows, roi_id: str | None) -> int:
    """The row of a neuron's channels."""
    rows = {windows.roi_ids[row]: int(row) for row in windows.neurons}
    if roi_id is not None and roi_id not in rows:
        where = windows.shared["recording_id"]
        raise ValueError(f"expected a neuron of {where} that gives windows, among {some(list(rows))}, got {roi_id!r}")
    return next(iter(rows.values())) if roi_id is None else rows[roi_id]


def _bounds(recording: Recording, start: float, length: int) -> tuple[int, int]:
    """First frame and end of a window that begins at a time; it ends with its segment, if that is earlier."""
    rate, num_frames = recording.sampling_rate, recording.num_frames
    first = round(start * rate) if math.isfinite(start) else -1
    later = [edge for edge in (*recording.segment_starts, num_frames) if edge > first >= 0]
    end = min([first + length, *later])
    if not later or end - first < MIN_FRAMES:
        last = math.floor((num_frames - MIN_FRAMES) / rate * 10) / 10
        raise ValueError(
            f"expected a start from 0 to {last} s, {MIN_FRAMES} frames or more before the end of its segment, "
            f"got {start}"
        )
    return first, end
