"""What a run trains on, chooses its checkpoint by and is tested on: sides of a build, and their windows."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Subset

from ..dataset_scripts.build_manifest import read_manifest
from ..dataset_scripts.parquet_rows import read_recording
from ..dataset_scripts.recording import SIMULATED, Recording
from ..dataset_scripts.windows import WindowDataset
from ..dataset_scripts.windows_on_disk import StoredWindowDataset
from ..processing_neurt import NeurtProcessor
from ..sampling import evenly_spaced
from ..splits import Split, check_disjoint, label_of, split_recordings
from .options import SplitOptions

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class KnownRecording:
    """What the manifest tells of a recording, under the names that `Recording` gives it; its file is not opened."""

    recording_id: str
    subject_id: str
    session_id: str
    sampling_rate: float
    trace_kind: str
    modality: str | None
    labels: Mapping[str, str | None]
    path: str
    source: Mapping[str, Any]
    sha256: str


_KNOWN = [field.name for field in fields(KnownRecording)]


@dataclass(frozen=True)
class TrainingData:
    """Recordings of a build on the sides of a split, and their windows.

    Args:
        build: Parquet build.
        recordings: All of its recordings.
        options: Who was to be held out, in so many words.
        split: Who trains and who is tested.
        label2id: Class id of each value of the label among the training animals; None without a label.
        datasets: The windows of each side that has recordings: "train", "validation", "test".
    """

    build: Path
    recordings: Sequence[KnownRecording]
    options: SplitOptions
    split: Split
    label2id: Mapping[str, int] | None
    datasets: Mapping[str, WindowDataset]

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed: the digest of every file, and the split."""
        data = {recording.path: recording.sha256 for recording in self.recordings}
        return {"data": data, "split": self.split.to_dict()}

    @property
    def simulated(self) -> bool:
        """Whether any recording was simulated; then every number says so."""
        return any(recording.modality == SIMULATED for recording in self.recordings)

    @property
    def trained_subjects(self) -> set[str]:
        """Animals whose windows train or choose the checkpoint."""
        return set().union(*(self.datasets[part].subject_ids for part in PARTS[:2] if part in self.datasets))

    def read(self, recordings: Iterable[KnownRecording]) -> Iterator[Recording]:
        """Recordings of the build, one in memory at a time."""
        return _read(self.build, recordings)

    def sample(self, part: str, count: int) -> Subset:
        """Windows evenly spaced over a side: the same ones each time."""
        dataset = self.datasets[part]
        return Subset(dataset, evenly_spaced(len(dataset), count).tolist())


def open_data(
    build: Path,
    processor: NeurtProcessor,
    options: SplitOptions,
    *,
    seed: int,
    label: str | None = None,
    missing_neighbours: str = "error",
    cache: Path | None = None,
) -> TrainingData:
    """Split a build and cut its windows.

    Args:
        build: Parquet build.
        processor: Cuts the windows.
        options: Who trains and who is tested; unless they name whom to hold out, the build's own test split is.
        seed: Seed of the draw.
        label: Name of the label to learn, one of the build's.
        missing_neighbours: As for `WindowDataset`.
        cache: Folder for the windows of a build that is larger than memory; see `StoredWindowDataset`.

    Raises:
        ValueError: If the build, the split or the labels cannot be used.
    """
    files = read_manifest(build)["files"]
    recordings = [KnownRecording(**{name: entry[name] for name in _KNOWN}) for entry in files]
    options = _stated(options, files)
    split = _split(recordings, options, seed, label)
    label2id = None if label is None else _class_ids(split.recordings(recordings, "train"), label)
    windows = {"label": label, "label2id": label2id, "missing_neighbours": missing_neighbours}
    windows |= {} if cache is None else {"folder": cache}
    members = {part: split.recordings(recordings, part) for part in PARTS}
    datasets = {part: _windows(build, part, members[part], processor, windows) for part in PARTS if members[part]}
    return TrainingData(build, recordings, options, split, label2id, datasets)


def _stated(options: SplitOptions, files: Sequence[Mapping[str, Any]]) -> SplitOptions:
    """Hold out what the build calls its test split, unless the options name what to hold out."""
    test = {entry.get(f"{options.split_by}_id") for entry in files if entry["split"] == "test"}
    return options if options.test or not test else replace(options, test=tuple(sorted(test)))


def _split(recordings: Sequence[KnownRecording], options: SplitOptions, seed: int, label: str | None) -> Split:
    """The split, checked for animals on both sides."""
    split = split_recordings(
        recordings,
        by=options.split_by,
        test=options.test,
        test_fraction=options.test_fraction,
        validation_fraction=options.validation_fraction,
        label=label,
        seed=seed,
    )
    if not options.allow_shared_subjects:
        train, validation, test = (split.recordings(recordings, part) for part in PARTS)
        check_disjoint(train + validation, test)
    return split


def _class_ids(recordings: Sequence[KnownRecording], label: str) -> dict[str, int]:
    """The classes there are to learn; a test animal of another one is refused when its windows are cut."""
    classes = sorted({label_of(recording, label) for recording in recordings})
    if len(classes) < 2:
        raise ValueError(f"expected at least two classes of {label!r} to train on, got {', '.join(classes)}")
    return {name: index for index, name in enumerate(classes)}


def _windows(
    build: Path, part: str, members: Sequence[KnownRecording], processor: NeurtProcessor, options: Mapping[str, Any]
) -> WindowDataset:
    kind = StoredWindowDataset if "folder" in options else WindowDataset
    try:
        return kind(_read(build, members), processor, **options)
    except ValueError as error:
        raise ValueError(f"{part} recordings: {error}") from error


def _read(build: Path, recordings: Iterable[KnownRecording]) -> Iterator[Recording]:
    """One after the other: the traces need not be in memory beside the windows."""
    for recording in recordings:
        yield read_recording(Path(build) / recording.path, recording.source)


def describe_training(processor: NeurtProcessor, recordings: Sequence[KnownRecording | Recording]) -> NeurtProcessor:
    """The processor to release: it expects the frame rate and trace kind of training, so that others give a warning.

    It expects nothing where the recordings differ: rates by over 10 % from their median, or in trace kind.
    """
    described = copy.copy(processor)
    rates, kinds = [recording.sampling_rate for recording in recordings], {each.trace_kind for each in recordings}
    median = float(np.median(rates))
    described.sampling_rate = median if np.allclose(rates, median, rtol=0.1) else None
    described.trace_kind = kinds.pop() if len(kinds) == 1 else None
    return described
