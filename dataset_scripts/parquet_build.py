"""The Parquet build: a folder with one file per recording, a dataset card and a manifest.

    data/{split}/{recording_id}.parquet   one row per ROI, see `parquet_rows.SCHEMA`
    units/{split}.parquet                 the same rows of all recordings, without their traces
    README.md                             the dataset card; `datasets.load_dataset(folder)` reads its configuration
    manifest.json                         builder, parameters, digest of every file, what was dropped and why

The same recordings give the same bytes, in whatever order and by how many processes they were written. A build is
written aside and renamed, so it is there whole or not at all.
"""

import contextlib
import dataclasses
import errno
import hashlib
import importlib.metadata
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ..writing_aside import file_aside, folder_aside
from .build_manifest import (
    MANIFEST,
    by_split,
    check_names,
    entry_of,
    further_columns,
    label_values,
    merge_class_labels,
    new_manifest,
    read_manifest,
    to_json,
)
from .dataset_card import render_card
from .parquet_rows import add_columns, read_recording, write_recording, write_units
from .recording import SPLITS, Recording
from .wording import count, printable, some, value_range

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclasses.dataclass(frozen=True)
class BuildSummary:
    """What one call of `write_build` or `finish_build` wrote.

    Args:
        folder: Where the build is.
        files: One manifest entry for each recording written, in order: path, split, neurons, frames, digest ...
        dropped: What was left out of the build, and why.
        held: The entries of all recordings that the build holds now.
    """

    folder: Path
    files: tuple[Mapping[str, Any], ...]
    dropped: tuple[Mapping[str, Any], ...]
    held: tuple[Mapping[str, Any], ...]

    @property
    def num_neurons(self) -> int:
        return sum(entry["neurons"] for entry in self.files)

    def report(self, done: str, notes: Iterable[str]) -> str:
        """Return lines that say what was written and left out, between what was done and what is worth knowing."""
        files = self.files
        placed, frames = (sum(entry[key] for entry in files) for key in ("neurons_with_positions", "frames"))
        units = sorted({entry["coordinate_unit"].replace("um", "µm") for entry in files if entry["coordinate_unit"]})
        splits = sorted(Counter(entry["split"] for entry in files).items())
        labels = ", ".join(f"{name} ({some(values)})" for name, values in label_values(files).items())
        split = ", ".join(f"{name} {count(number, 'recording')}" for name, number in splits)
        lines = [
            done,
            *self._addition(),
            f"neurons: {self.num_neurons}, {placed} with positions" + (f" in {' or '.join(units)}" if units else ""),
            f"frames: {frames} in all, {value_range(entry['frames'] for entry in files)} a recording",
            f"sampling rate: {value_range(entry['sampling_rate'] for entry in files)} Hz",
            f"traces: {', '.join(sorted({entry['trace_kind'] for entry in files}))}",
            f"labels: {labels or 'none'}",
            f"split: {split}",
            *(f"left out: {entry['recording_id']}: {entry['why']}" for entry in self.dropped),
            *(f"note: {note}" for note in notes),
            f"build: {self.folder}",
        ]
        return "\n".join(map(printable, lines))

    def _addition(self) -> Iterator[str]:
        """Say of a build that held something before what it holds now; all other lines count what was added."""
        if len(self.held) > len(self.files):
            neurons = sum(entry["neurons"] for entry in self.held)
            yield (
                f"added: {count(len(self.files), 'recording')}, counted below; the build now holds {len(self.held)} "
                f"with {count(neurons, 'neuron')}"
            )


def write_build(
    recordings: Iterable[Recording],
    folder: str | os.PathLike,
    *,
    split: Mapping[str, str] | None = None,
    builder: str,
    parameters: Mapping[str, Any],
    dropped: Sequence[Mapping[str, Any]] = (),
    class_labels: Mapping[str, Sequence[str]] | None = None,
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
        class_labels: Names of the classes of those labels that are classes, see `finish_build`.

    Raises:
        ValueError: If the folder holds something else, an id is no safe file name or is there twice, a label has the
            name of a column, or there is no recording at all.
        OSError: If the disk is full; nothing is written then.
    """
    split = {} if split is None else split
    with _changed(folder) as (aside, manifest):
        taken = _names(manifest["files"])
        entries = []
        for recording in recordings:
            _take_name(recording.recording_id, taken)
            entries.append(write_file(recording, aside, split.get(recording.recording_id, "train")))
        step = _step(builder, parameters, entries, dropped)
        held = _finish(aside, manifest, entries, step, class_labels or {})
    return _summary(folder, entries, dropped, held)


def write_file(recording: Recording, folder: str | os.PathLike, split: str = "train") -> dict[str, Any]:
    """Write a recording as one file below a folder, whole or not at all, in place of one that is there.

    Many processes may do this at once, each for its own recordings; `finish_build` makes a build of the files.

    Args:
        recording: What to write.
        folder: A staging folder; the file is `data/{split}/{recording_id}.parquet` below it.
        split: "train", "validation" or "test".

    Returns:
        The entry of the manifest, as it comes back from JSON, with the file's sha256.

    Raises:
        ValueError: If the id is no safe file name, a label or column has a name that cannot be, or there is no such
            split.
        OSError: If the disk is full.
    """
    check_names(recording)
    if split not in SPLITS:
        raise ValueError(
            f"recording {recording.recording_id!r}: expected a split among {', '.join(SPLITS)}, got {split!r}"
        )
    entry = entry_of(recording, split)
    path = Path(folder) / entry["path"]
    with _room_for(path), file_aside(path, replace=True) as aside:
        write_recording(aside, recording)
    return entry | _measures(path)


def finish_build(
    staging: str | os.PathLike,
    target: str | os.PathLike,
    entries: Sequence[Mapping[str, Any]],
    *,
    builder: str,
    parameters: Mapping[str, Any],
    dropped: Sequence[Mapping[str, Any]] = (),
    class_labels: Mapping[str, Sequence[str]] | None = None,
    origin: Mapping[str, Any] | None = None,
) -> BuildSummary:
    """Make a build of files that `write_file` wrote, or add them to one.

    The files are linked where that is possible, so the staging folder stays whole until its owner removes it.

    Args:
        staging: The folder that `write_file` wrote to.
        target: The build. It may be absent, empty, or a build already.
        entries: What `write_file` returned, in any order.
        builder: The command that made the build, for the manifest.
        parameters: Everything chosen, for the manifest; no paths, times or URLs.
        dropped: What was left out, each with at least "recording_id" and "why", in the order of the card.
        class_labels: Names of the classes of those labels that are classes, in the order of their ids.
            `datasets.load_dataset` gives these as ClassLabel. Names that a build has keep their ids.
        origin: Where the recordings come from, for the card: any of "title", "licence" (a tag of the Hub such as
            "cc-by-4.0"), "licence_name", "citation" and "changes" (lists of sentences), "columns" (what those of
            `Recording.columns` mean).

    Raises:
        ValueError: If the target holds something else, a recording is there twice, a staged file is missing, a column
            differs in type between recordings, a label has a value outside of its classes, or there are no entries.
        OSError: If the disk is full; the target stays as it was.
    """
    with _changed(target) as (aside, manifest):
        taken = _names(manifest["files"])
        for entry in entries:
            _take_name(entry["recording_id"], taken)
            path = aside / entry["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(Path(staging) / entry["path"], path)
        step = _step(builder, parameters, entries, dropped, origin)
        held = _finish(aside, manifest, entries, step, class_labels or {})
    return _summary(target, entries, dropped, held)


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
    chosen = choose_files(read_manifest(folder), folder, split, subjects)
    return (read_recording(folder / entry["path"], entry["source"]) for entry in chosen)


def choose_files(
    manifest: Mapping[str, Any], folder: str | os.PathLike, split: str | None, subjects: Sequence[str]
) -> list[Mapping[str, Any]]:
    """Return the entries of a manifest that `read_build` reads; raise ValueError if the build has no such split."""
    files = manifest["files"]
    chosen = [entry for entry in files if split in (None, entry["split"])]
    if not chosen:
        known = ", ".join(sorted({entry["split"] for entry in files}))
        raise ValueError(f"{folder}: expected a split among {known}, got {split!r}")
    return [entry for entry in chosen if not subjects or entry["subject_id"] in subjects]


@contextlib.contextmanager
def _changed(folder: str | os.PathLike) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Give a folder with what the build holds, none of it to be written in place, and its manifest.

    The folder takes the place of the build when the block ends well and no one else has changed the build meanwhile.
    """
    target = Path(folder).resolve()
    _check_target(target)
    with _room_for(target), folder_aside(target, replace=True) as aside:
        if target.exists():
            # Files are replaced, never written to, so links are as good as copies and cost nothing.
            shutil.copytree(target, aside, copy_function=_link_or_copy, dirs_exist_ok=True)
        before = _manifest_bytes(aside)
        yield aside, read_manifest(aside) if before else new_manifest()
        _check_unchanged(target, before)


@contextlib.contextmanager
def _room_for(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OSError(
            f"{path}: expected room on the disk, got none left ({os.strerror(error.errno)}); what was there is as it "
            "was; free some space or choose another --output"
        ) from error


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


def _manifest_bytes(folder: Path) -> bytes:
    path = folder / MANIFEST
    return path.read_bytes() if path.exists() else b""


def _check_unchanged(target: Path, before: bytes) -> None:
    if _manifest_bytes(target) != before:
        raise ValueError(
            f"{target}: expected a build that stays as it is while recordings are added, got one that another process "
            "wrote to; add them again, one after the other"
        )


def _link_or_copy(source: str | os.PathLike, destination: str | os.PathLike) -> None:
    try:
        os.link(source, destination)
    except OSError:
        shutil.copy2(source, destination)


def _names(files: Iterable[Mapping[str, Any]]) -> set[str]:
    return {entry["recording_id"].casefold() for entry in files}


def _take_name(name: str, taken: set[str]) -> None:
    # File names may not differ by case alone: some file systems would let one overwrite the other.
    if name.casefold() in taken:
        raise ValueError(
            f"recording {name!r}: expected an id that is not in the build yet, got one that is (upper and lower "
            "case count as the same); rename it or write to another --output"
        )
    taken.add(name.casefold())


def _step(
    builder: str,
    parameters: Mapping[str, Any],
    entries: Sequence[Mapping[str, Any]],
    dropped: Sequence[Mapping[str, Any]],
    origin: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what the manifest says of one time that recordings were written."""
    if not entries:
        raise ValueError(_nothing_left(dropped))
    step = {
        "builder": builder,
        "version": importlib.metadata.version("neurt"),
        "parameters": dict(parameters),
        "recordings": sorted(entry["recording_id"] for entry in entries),
        "dropped": [dict(entry) for entry in dropped],
    }
    return step | ({"origin": dict(origin)} if origin else {})


def _finish(
    aside: Path,
    manifest: Mapping[str, Any],
    entries: Sequence[Mapping[str, Any]],
    step: Mapping[str, Any],
    class_labels: Mapping[str, Sequence[str]],
) -> tuple[dict[str, Any], ...]:
    """Write what a build has once, now that all its files are there; returns all its entries as they stand then."""
    files = sorted([*manifest["files"], *entries], key=lambda entry: entry["recording_id"])
    columns, labels = further_columns(files)
    classes = merge_class_labels(manifest["class_labels"], class_labels, files)
    files = [_with_columns(aside, entry, columns, labels) for entry in files]
    manifest = {
        "format": manifest["format"],
        "steps": [*manifest["steps"], step],
        "class_labels": classes,
        "files": files,
        "units": _write_units(aside, files, columns, labels),
    }
    _replace(aside / "README.md", render_card(manifest))
    _replace(aside / MANIFEST, to_json(manifest))
    return tuple(files)


def _summary(
    folder: str | os.PathLike,
    entries: Sequence[Mapping[str, Any]],
    dropped: Sequence[Mapping[str, Any]],
    held: tuple[Mapping[str, Any], ...],
) -> BuildSummary:
    by_id = {entry["recording_id"]: entry for entry in held}
    written = tuple(by_id[entry["recording_id"]] for entry in entries)
    return BuildSummary(Path(folder).resolve(), written, tuple(dropped), held)


def _with_columns(
    folder: Path, entry: Mapping[str, Any], columns: Mapping[str, str], labels: Sequence[str]
) -> dict[str, Any]:
    """Give a file the columns that only others have, and its entry the digest that it has then."""
    path = folder / entry["path"]
    return {**entry, **(_measures(path) if add_columns(path, columns, labels) else {})}


def _write_units(
    folder: Path, files: Sequence[Mapping[str, Any]], columns: Mapping[str, str], labels: Sequence[str]
) -> list[dict[str, Any]]:
    units = []
    for split, part in by_split(files):
        path = f"units/{split}.parquet"
        write_units(folder / path, [folder / entry["path"] for entry in part], columns, labels)
        rows = sum(entry["neurons"] for entry in part)
        units.append({"split": split, "path": path, "neurons": rows, **_measures(folder / path)})
    return units


def sha256_of(path: Path) -> str:
    """Return the digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _measures(path: Path) -> dict[str, Any]:
    """Return the size of a Parquet file, its size without compression, and its digest."""
    with pq.ParquetFile(path) as file:
        groups = [file.metadata.row_group(group).total_byte_size for group in range(file.num_row_groups)]
    return {"bytes": path.stat().st_size, "uncompressed_bytes": sum(groups), "sha256": sha256_of(path)}


def _replace(path: Path, text: str) -> None:
    # The file may be a link to the one in the build that is being added to.
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")


def _nothing_left(dropped: Sequence[Mapping[str, Any]]) -> str:
    if not dropped:
        return "expected at least one recording to write, got none"
    first = dropped[0]
    return (
        "expected at least one recording that can be used, got none; "
        f"the first of {len(dropped)} left out: {first.get('recording_id')}: {first.get('why')}"
    )
