"""The windows that a recording gives, and a map-style data set of those of many recordings held in memory.

`window_streams` gives the same windows from a build, as data sets of the `datasets` library.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ..processing_neurt import NeurtProcessor, make_window, window_bounds
from ..splits import label_of
from .recording import Recording


class NoWindows(ValueError):
    """A recording gives no windows; the message says why."""


@dataclasses.dataclass(frozen=True, eq=False)
class RecordingWindows:
    """The windows of one recording, neuron by neuron.

    Args:
        channels: float32 (N, T, 5), NaN where absent.
        neurons: Rows of `channels` that give windows, int64.
        bounds: First frame and end of each neuron's windows.
        roi_ids: One for each row of `channels`.
        window_length: Frames in a window; shorter ones are padded.
        with_absent: Whether windows say which channels are absent.
        shared: What all windows carry: `sampling_rate` (Hz), `recording_id`, `subject_id`, maybe `labels`.
        dropped: The number of neurons left out for each reason.
    """

    channels: np.ndarray
    neurons: np.ndarray
    bounds: Sequence[tuple[int, int]]
    roi_ids: Sequence[str]
    window_length: int
    with_absent: bool
    shared: Mapping[str, Any]
    dropped: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.neurons) * len(self.bounds)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """One window: `make_window`'s arrays, where it comes from, and `labels` for classification."""
        neuron = int(self.neurons[row // len(self.bounds)])
        first, end = self.bounds[row % len(self.bounds)]
        window = make_window(self.channels[neuron], first, end, self.window_length)
        if not self.with_absent:
            del window["bool_masked_pos"]
        where = {"roi_id": self.roi_ids[neuron], "neuron_index": neuron, "start_frame": first}
        return {**window, **self.shared, **where}

    @property
    def num_padded(self) -> int:
        """Windows shorter than `window_length`."""
        return len(self.neurons) * sum(end - first < self.window_length for first, end in self.bounds)

    @property
    def unused_frames(self) -> int:
        """Frames in no window: ends of segments too short for one, and what a long stride leaves out."""
        unused = np.ones(self.channels.shape[1], dtype=bool)
        for first, end in self.bounds:
            unused[first:end] = False
        return int(unused.sum())


def cut_windows(
    recording: Recording,
    processor: NeurtProcessor,
    *,
    label: str | None = None,
    label2id: Mapping[str, int] | None = None,
    missing_neighbours: str = "error",
    scale_frames: int | None = None,
) -> RecordingWindows:
    """Compute a recording's channels and say which windows it gives; arguments as for `WindowDataset`.

    Args:
        scale_frames: Number of leading frames that set the scale, by default all; see `scale_traces`.

    Raises:
        NoWindows: If it gives none.
        ValueError: If it lacks the label.
    """
    rejected = int((~recording.accepted).sum())
    try:
        recording = recording.accepted_neurons()
        channels, dropped = processor.channels_and_dropped(
            recording.traces, recording.centroids, recording.coordinate_unit, missing_neighbours, scale_frames
        )
    except ValueError as error:
        raise NoWindows(str(error)) from error
    bounds = window_bounds(
        recording.num_frames, recording.segment_starts, processor.window_length, processor.window_stride
    )
    if not bounds:
        raise NoWindows("no segment is long enough for a window")
    processor.check_expectations(recording.sampling_rate, recording.trace_kind)
    counts = {"rejected by the curator": rejected, **{reason: len(rows) for reason, rows in dropped.items()}}
    return RecordingWindows(
        channels=channels,
        neurons=np.flatnonzero(~np.isnan(channels[:, 0, 0])),
        bounds=bounds,
        roi_ids=recording.roi_ids,
        window_length=processor.window_length,
        with_absent=missing_neighbours == "mask",
        shared=_shared(recording, label, label2id),
        dropped={reason: count for reason, count in counts.items() if count},
    )


def _shared(recording: Recording, label: str | None, label2id: Mapping[str, int] | None) -> dict[str, Any]:
    shared = {
        "sampling_rate": np.float32(recording.sampling_rate),
        "recording_id": recording.recording_id,
        "subject_id": recording.subject_id,
    }
    if label is not None:
        shared["labels"] = _class_id(recording, label, label2id)
    return shared


def _class_id(recording: Recording, label: str, label2id: Mapping[str, int]) -> int:
    value = label_of(recording, label)
    if value not in label2id:
        raise ValueError(
            f"recording {recording.recording_id!r}: expected label {label!r} among "
            f"{', '.join(label2id)}, got {value!r}"
        )
    return label2id[value]


def no_windows(skipped: Mapping[str, str]) -> ValueError:
    """The error of a data set without any window, from why each recording gives none."""
    reasons = "; ".join(f"{name}: {why}" for name, why in list(skipped.items())[:3])
    return ValueError(f"expected recordings that give windows, got none ({reasons or 'no recordings at all'})")


class WindowDataset(Dataset):
    """All windows of some recordings, neuron by neuron; the channels of a recording are kept once.

    Args:
        recordings: Recordings; one that cannot be cut into windows is skipped and named in `skipped`.
        processor: Cuts the windows.
        label2id: Class id of each value of `label`, for classification.
        label: Name of the label, one of those in `Recording.labels`.
        missing_neighbours: "error" skips recordings without positions, "mask" marks their neighbour channels absent.
        cut: What gives the windows of a recording: `cut_windows`, or the like.

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
        cut: Callable[..., RecordingWindows] = cut_windows,
    ):
        self.label, self.label2id = label, label2id
        self.epoch = 0
        self.skipped: dict[str, str] = {}
        self.dropped: dict[str, dict[str, int]] = {}
        self.unused_frames: dict[str, int] = {}
        self._recordings: list[RecordingWindows] = []
        options = {"label": label, "label2id": label2id, "missing_neighbours": missing_neighbours}
        for recording in recordings:
            try:
                self._add(cut(recording, processor, **options))
            except NoWindows as reason:
                self.skipped[recording.recording_id] = str(reason)
        if not self._recordings:
            raise no_windows(self.skipped)
        # One row a window: recording, and which of its windows.
        self._windows = np.concatenate(
            [np.stack([np.full(len(cut), i), np.arange(len(cut))], 1) for i, cut in enumerate(self._recordings)]
        )

    def _add(self, windows: RecordingWindows):
        recording_id = windows.shared["recording_id"]
        if windows.dropped:
            self.dropped[recording_id] = dict(windows.dropped)
        self.unused_frames[recording_id] = windows.unused_frames
        self._recordings.append(windows)

    def set_epoch(self, epoch: int):
        """Number the pass over the data; masks are drawn anew for each.

        Accelerate's loaders, and so `Trainer`, call this on one process only; on several add the callback
        `training.trainer_callbacks.SetEpoch`, or masks repeat each epoch.
        """
        self.epoch = epoch

    @property
    def by_recording(self) -> Sequence[RecordingWindows]:
        """The windows of each recording, in the order of `recording_ids`."""
        return self._recordings

    @property
    def recording_ids(self) -> list[str]:
        return [windows.shared["recording_id"] for windows in self._recordings]

    @property
    def subject_ids(self) -> list[str]:
        """Sorted, each once."""
        return sorted({windows.shared["subject_id"] for windows in self._recordings})

    @property
    def window_recordings(self) -> np.ndarray:
        """The place of each window's recording in `recording_ids`; int (n,)."""
        return self._windows[:, 0]

    @property
    def num_padded_windows(self) -> int:
        """Windows shorter than `window_length`."""
        return sum(windows.num_padded for windows in self._recordings)

    def sample(self, most: int, seed: int = 0) -> np.ndarray:
        """Indices, sorted, of at most so many windows of each recording, drawn at random."""
        rng, recording = np.random.default_rng(seed), self.window_recordings
        rows = (np.flatnonzero(recording == place) for place in range(len(self._recordings)))
        return np.concatenate([np.sort(rng.permutation(mine)[:most]) for mine in rows])

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One window as `RecordingWindows` gives it, with its index and the epoch."""
        recording, row = self._windows[index].tolist()
        return {**self._recordings[recording][row], "window_index": index, "epoch": self.epoch}
