"""The Parquet build: a folder with one file per recording, a dataset card and a manifest.

    data/{split}/{recording_id}.parquet   one row per ROI, see `parquet_rows.SCHEMA`
    README.md                             the dataset card; `datasets.load_dataset(folder)` reads its configuration
    manifest.json                         builder, parameters, digest of every file, what was dropped and why

The same recordings give the same bytes. A build is written aside and renamed, so it is there whole or not at all.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..processing_neurt import MIN_NEURONS
from ..writing_aside import folder_aside
from .dataset_card import render_card
from .parquet_rows import SCHEMA, add_label_columns, read_recording, write_recording
from .recording import SPLITS, Recording

_SAFE_NAME = re.compile(r"\w(?:[\w.+=@ -]*[\w+=@-])?")
_SAFE_LABEL = re.compile(r"[A-Za-z]\w*")
_MANIFEST = "manifest.json"


@dataclasses.dataclass(frozen=True)
class BuildSummary:
    """What one call of `write_build` wrote.

    Args:
        folder: Where the build is.
        files: One manifest entry for each recording written, in order: path, split, neurons, frames, digest ...
        dropped: What was left out of the build, and why.
    """

    folder: Path
    files: tuple[Mapping[str, Any], ...]
    dropped: tuple[Mapping[str, Any], ...]

    @property
    def num_recordings(self) -> int:
        return len(self.files)

    @property
    def num_neurons(self) -> int:
        return sum(entry["neurons"] for entry in self.files)

    @property
    def num_frames(self) -> int:
        return sum(entry["frames"] for entry in self.files)

    @property
    def without_neighbour_channels(self) -> tuple[str, ...]:
        """Recordings with too few positions for neighbour channels."""
        return tuple(entry["recording_id"] for entry in self.files if not entry["neighbour_channels"])


def write_build(
    recordings: Iterable[Recording],
    folder: str | os.PathLike,
    *,
    split: Mapping[str, str] | None = None,
    builder: str,
    parameters: Mapping[str, Any],
    dropped: Sequence[Mapping[str, Any]] = (),
) -> BuildSummary:
    """Write recordings as a Parquet build, or add them to the build that is in the folder.

    Args:
        recordings: Taken one at a time, so a generator keeps memory to one recording.
        folder: The build. It may be absent, empty, or a build already.
        split: "train", "validation" or "test" for a recording_id; "train" where it says nothing. It is looked up
            after a recording is taken, so a generator may fill it.
        builder: The command that made the build, for the manifest.
        parameters: Everything chosen, for the manifest; no paths, times or URLs.
        dropped: What was left out, each with at least "recording_id" and "why"; read after the last recording.

    Raises:
        ValueError: If the folder holds something else, an id is no safe file name or is there twice, a label has the
            name of a column, or there is no recording at all.
    """
    target = Path(folder).resolve()
    _check_target(target)
    with folder_aside(target, replace=True) as aside:
        before = _start_from(target, aside)
        manifest = read_manifest(aside) if before else {"format": 1, "steps": [], "files": []}
        written = _write_recordings(recordings, aside, {} if split is None else split, manifest["files"])
        if not written:
            raise ValueError(_nothing_left(dropped))
        files = sorted(manifest["files"] + written, key=lambda entry: entry["recording_id"])
        _give_all_the_same_columns(aside, files)
        step = {
            "builder": builder,
            "version": importlib.metadata.version("neurt"),
            "parameters": dict(parameters),
            "recordings": [entry["recording_id"] for entry in written],
            "dropped": [dict(entry) for entry in dropped],
        }
        _finish(aside, {**manifest, "steps": manifest["steps"] + [step], "files": files})
        _check_unchanged(target, before)
    return BuildSummary(target, tuple(written), tuple(dropped))


def read_build(
    folder: str | os.PathLike, split: str | None = None, subjects: Sequence[str] = ()
) -> Iterator[Recording]:
    """Yield the recordings of a build, sorted by recording_id, with one of them in memory at a time.

    Args:
        folder: A folder that `write_build` made.
        split: "train", "validation" or "test"; every split when None.
        subjects: Animals to read; all if empty. The files of others are not opened.

    Raises:
        ValueError: If the folder is no build, a file is missing or damaged, or the build has no such split.
    """
    folder = Path(folder)
    files = read_manifest(folder)["files"]
    chosen = [entry for entry in files if split in (None, entry["split"])]
    if not chosen:
        known = ", ".join(sorted({entry["split"] for entry in files}))
        raise ValueError(f"{folder}: expected a split among {known}, got {split!r}")
    chosen = [entry for entry in chosen if not subjects or entry["subject_id"] in subjects]
    return (read_recording(folder / entry["path"], entry["source"]) for entry in chosen)


def read_manifest(folder: str | os.PathLike) -> dict[str, Any]:
    """Return the manifest of a build; raise ValueError where the folder is none."""
    path = Path(folder) / _MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest["steps"]
        for entry in manifest["files"]:
            _check_entry(entry)
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(
            f"{folder}: expected a NEuRT build (a folder with a manifest.json that is whole), found none; "
            "make one with `neurt import` or `neurt simulate`"
        ) from None
    return manifest


def _check_entry(entry: Mapping[str, Any]) -> None:
    # A manifest comes with a build from anywhere; what it says may not lead out of the folder.
    name, split = entry["recording_id"], entry["split"]
    if not _SAFE_NAME.fullmatch(name) or split not in SPLITS or entry["path"] != f"data/{split}/{name}.parquet":
        raise ValueError(f"expected data/(split)/(recording_id).parquet, got {entry['path']!r}")


def _check_target(target: Path) -> None:
    if target.is_dir() and any(target.iterdir()):
        try:
            read_manifest(target)
        except ValueError:
            raise ValueError(
                f"{target}: expected a new or empty folder or a NEuRT build to add to, got a folder with other files; "
                "choose another --output"
            ) from None
    elif target.exists() and not target.is_dir():
        raise ValueError(f"{target}: expected a folder to write the build to, got a file; choose another --output")


def _start_from(target: Path, aside: Path) -> bytes:
    """Fill the folder with what the target holds already; returns the bytes of its manifest, none if it has none."""
    if target.exists():
        # Files are replaced, never written to, so links are as good as copies and cost nothing.
        shutil.copytree(target, aside, copy_function=_link_or_copy, dirs_exist_ok=True)
    return _manifest_bytes(aside)


def _manifest_bytes(folder: Path) -> bytes:
    path = folder / _MANIFEST
    return path.read_bytes() if path.exists() else b""


def _check_unchanged(target: Path, before: bytes) -> None:
    if _manifest_bytes(target) != before:
        raise ValueError(
            f"{target}: expected a build that stays as it is while recordings are added, got one that another process "
            "wrote to; add them again, one after the other"
        )


def _link_or_copy(source: str, destination: str) -> None:
    try:
        os.link(source, destination)
    except OSError:
        shutil.copy2(source, destination)


def _write_recordings(
    recordings: Iterable[Recording], folder: Path, split: Mapping[str, str], present: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    # File names may not differ by case alone: some file systems would let one overwrite the other.
    taken = {entry["recording_id"].casefold() for entry in present}
    written = []
    for recording in recordings:
        name = recording.recording_id
        _check_names(recording)
        if name.casefold() in taken:
            raise ValueError(
                f"recording {name!r}: expected an id that is not in the build yet, got one that is (upper and lower "
                "case count as the same); rename it or write to another --output"
            )
        taken.add(name.casefold())
        part = split.get(name, "train")
        if part not in SPLITS:
            raise ValueError(f"recording {name!r}: expected a split among {', '.join(SPLITS)}, got {part!r}")
        path = f"data/{part}/{name}.parquet"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_recording(folder / path, recording)
        written.append(_entry(recording, part, path))
    return written


def _check_names(recording: Recording) -> None:
    name = recording.recording_id
    if not _SAFE_NAME.fullmatch(name) or len(name.encode()) > 200:
        raise ValueError(
            f"recording {name!r}: expected an id that is safe as a file name (letters, digits, . _ + = @ - and "
            "spaces, beginning with a letter or digit, at most 200 bytes); rename it"
        )
    for label in recording.labels:
        if not _SAFE_LABEL.fullmatch(label) or label in SCHEMA.names:
            raise ValueError(
                f"recording {name!r}: expected label names of letters, digits and _ that are no column of a build, "
                f"got {label!r}; rename the label"
            )


def _entry(recording: Recording, split: str, path: str) -> dict[str, Any]:
    has_position = _has_position(recording)
    placed = int(has_position.sum())
    return {
        "recording_id": recording.recording_id,
        "split": split,
        "path": path,
        "subject_id": recording.subject_id,
        "session_id": recording.session_id,
        "neurons": recording.num_neurons,
        "neurons_with_positions": placed,
        # Rejected neurons are in the build on request, but in no window.
        "neighbour_channels": int((has_position & recording.accepted).sum()) >= MIN_NEURONS,
        "coordinate_unit": recording.coordinate_unit if placed else None,
        "frames": recording.num_frames,
        "sampling_rate": float(recording.sampling_rate),
        "trace_kind": recording.trace_kind,
        "modality": recording.modality,
        "labels": {name: None if value is None else str(value) for name, value in sorted(recording.labels.items())},
        "source": dict(recording.source),
    }


def _has_position(recording: Recording) -> np.ndarray:
    if recording.centroids is None:
        return np.zeros(recording.num_neurons, dtype=bool)
    return np.isfinite(recording.centroids).all(axis=1)


def _give_all_the_same_columns(folder: Path, files: Sequence[Mapping[str, Any]]) -> None:
    """Add the labels that only other recordings carry as empty columns: `load_dataset` wants one set of columns."""
    labels = {name for entry in files for name in entry["labels"]}
    for entry in files:
        add_label_columns(folder / entry["path"], labels)


def _finish(folder: Path, manifest: dict[str, Any]) -> None:
    files = [{**entry, "sha256": _sha256(folder / entry["path"])} for entry in manifest["files"]]
    manifest = {**manifest, "files": files}
    _replace(folder / "README.md", render_card(manifest))
    _replace(folder / _MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False, default=_plain) + "\n")


def _replace(path: Path, text: str) -> None:
    # The file may be a link to the one in the build that is being added to.
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _nothing_left(dropped: Sequence[Mapping[str, Any]]) -> str:
    if not dropped:
        return "expected at least one recording to write, got none"
    first = dropped[0]
    return (
        "expected at least one recording that can be used, got none; "
        f"the first of {len(dropped)} left out: {first.get('recording_id')}: {first.get('why')}"
    )
