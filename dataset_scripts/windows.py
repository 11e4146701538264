"""A map-style data set of windows, cut from recordings by a processor."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ..processing_neurt import NeurtProcessor, make_window, window_bounds
from ..splits import label_of
from .recording import Recording


class WindowDataset(Dataset):
    """All windows of some recordings, neuron by neuron; the channels of a recording are kept once.

    Args:
        recordings: Recordings; one that cannot be cut into windows is skipped and named in `skipped`.
        processor: Cuts the windows.
        label2id: Class id of each value of `label`, for classification.
        label: Name of the label, one of those in `Recording.labels`.
        missing_neighbours: "error" skips recordings without positions, "mask" marks their neighbour channels absent.

    Attributes:
        skipped: Why, for each recording that was left out.
        dropped: For each recording, the number of neurons left out for each reason.
        unused_frames: For each recording, the frames in no window: ends of segments too short for one.

    Raises:
        ValueError: If no recording gives a window, or one lacks the label.
    """

    def __init__(
        self,
        recordings: Iterable[Recording],
        processor: NeurtProcessor,
        *,
        label: str | None = None,
        label2id: Mapping[str, int] | None = None,
        missing_neighbours: str = "error",
    ):
        self.window_length = processor.window_length
        self.missing_neighbours = missing_neighbours
        self.label, self.label2id = label, label2id
        self.epoch = 0
        self.skipped: dict[str, str] = {}
        self.dropped: dict[str, dict[str, int]] = {}
        self.unused_frames: dict[str, int] = {}
        self._recordings: list[dict[str, Any]] = []
        tables = [table for recording in recordings if (table := self._add(recording, processor)) is not None]
        if not tables:
            reasons = "; ".join(f"{name}: {why}" for name, why in list(self.skipped.items())[:3])
            raise ValueError(f"expected recordings that give windows, got none ({reasons or 'no recordings at all'})")
        # One row a window: recording, neuron, first frame, end.
        self._windows = np.concatenate(tables)

    def _add(self, recording: Recording, processor: NeurtProcessor) -> np.ndarray | None:
        """Keep a recording's channels; returns its rows of the table of windows, None if it is skipped."""
        rejected = int((~recording.accepted).sum())
        try:
            recording = recording.accepted_neurons()
            channels, dropped = processor.channels_and_dropped(
                recording.traces,
                recording.centroids,
                coordinate_unit=recording.coordinate_unit,
                missing_neighbours=self.missing_neighbours,
            )
        except ValueError as error:
            self.skipped[recording.recording_id] = str(error)
            return None
        bounds = window_bounds(
            recording.num_frames, recording.segment_starts, processor.window_length, processor.window_stride
        )
        if not bounds:
            self.skipped[recording.recording_id] = "no segment is long enough for a window"
            return None
        counts = {"rejected by the curator": rejected, **{reason: len(rows) for reason, rows in dropped.items()}}
        if any(counts.values()):
            self.dropped[recording.recording_id] = {reason: count for reason, count in counts.items() if count}
        unused = np.ones(recording.num_frames, dtype=bool)
        for first, end in bounds:
            unused[first:end] = False
        self.unused_frames[recording.recording_id] = int(unused.sum())
        neurons = np.flatnonzero(~np.isnan(channels[:, 0, 0]))
        table = np.empty((len(neurons) * len(bounds), 4), dtype=np.int64)
        table[:, 0] = len(self._recordings)
        table[:, 1] = np.repeat(neurons, len(bounds))
        table[:, 2:] = np.tile(bounds, (len(neurons), 1))
        processor.check_expectations(recording.sampling_rate, recording.trace_kind)
        self._recordings.append(self._describe(recording, channels))
        return table

    def _describe(self, recording: Recording, channels: np.ndarray) -> dict[str, Any]:
        description = {
            "channels": channels,
            "roi_ids": recording.roi_ids,
            "recording_id": recording.recording_id,
            "subject_id": recording.subject_id,
            "sampling_rate": np.float32(recording.sampling_rate),
        }
        if self.label is not None:
            description["labels"] = self._class_id(recording)
        return description

    def _class_id(self, recording: Recording) -> int:
        value = label_of(recording, self.label)
        if value not in self.label2id:
            raise ValueError(
                f"recording {recording.recording_id!r}: expected label {self.label!r} among "
                f"{', '.join(self.label2id)}, got {value!r}"
            )
        return self.label2id[value]

    def set_epoch(self, epoch: int):
        """Number the pass over the data; masks are drawn anew for each.

        Accelerate's loaders, and so `Trainer`, call this on one process only: on several, masks repeat each epoch.
        """
        self.epoch = epoch

    @property
    def recording_ids(self) -> list[str]:
        return [recording["recording_id"] for recording in self._recordings]

    @property
    def subject_ids(self) -> list[str]:
        """Sorted, each once."""
        return sorted({recording["subject_id"] for recording in self._recordings})

    @property
    def num_padded_windows(self) -> int:
        """Windows shorter than `window_length`."""
        return int((self._windows[:, 3] - self._windows[:, 2] < self.window_length).sum())

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One window: `make_window`'s arrays, where it comes from, and `labels` for classification."""
        recording_index, neuron, first, end = self._windows[index].tolist()
        recording = self._recordings[recording_index]
        window = make_window(recording["channels"][neuron], first, end, self.window_length)
        if self.missing_neighbours == "error":
            del window["bool_masked_pos"]
        window |= {
            "sampling_rate": recording["sampling_rate"],
            "recording_id": recording["recording_id"],
            "subject_id": recording["subject_id"],
            "roi_id": recording["roi_ids"][neuron],
            "neuron_index": neuron,
            "start_frame": first,
            "window_index": index,
            "epoch": self.epoch,
        }
        if "labels" in recording:
            window["labels"] = recording["labels"]
        return window
