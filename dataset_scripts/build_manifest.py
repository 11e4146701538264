"""The manifest of a Parquet build, `manifest.json`: what is in every file, its digest, and how the build was made.

    format         number of the layout
    steps          each time recordings were written: builder, version, parameters, recordings, dropped, origin
    class_labels   names of the classes of labels that are classes, in the order of their ids
    files          one entry for each recording: ids, sizes, labels, columns, source, sha256
    units          one entry for each split: the rows of all its files without their traces

No times, paths of this machine or URLs, so that the same recordings give the same bytes.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..processing_neurt import MIN_NEURONS
from .parquet_rows import SCHEMA
from .recording import COLUMN_TYPES, SPLITS, Recording, column_type
from .wording import repeated, some

FORMAT = 1
MANIFEST = "manifest.json"

_SAFE_NAME = re.compile(r"\w(?:[\w.+=@ -]*[\w+=@-])?")
# Names of devices on Windows, whatever follows the first dot.
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
_MOST_NAME_BYTES = 200
_SAFE_COLUMN = re.compile(r"[A-Za-z]\w{0,99}")
_ENTRY_TYPES = {
    "recording_id": str,
    "split": str,
    "path": str,
    "subject_id": str,
    "session_id": str,
    "neurons": int,
    "neurons_with_positions": int,
    "neighbour_channels": bool,
    "coordinate_unit": str | None,
    "frames": int,
    "segments": int,
    "sampling_rate": float | int,
    "trace_kind": str,
    "modality": str | None,
    "labels": dict,
    "columns": dict,
    "source": dict,
    "bytes": int,
    "uncompressed_bytes": int,
    "sha256": str,
}
# What the card says of the preparation, see `preparation_notes`; each may be absent.
_PREPARATION_TYPES = {
    "gaps_filled": int,
    "neurons_with_gaps": int,
    "longest_gap_s": float | int,
    "dff": str,
    "resampled_from": float | int,
}
_STEP_TYPES = {"builder": str, "version": str, "parameters": dict, "recordings": list, "dropped": list}


def new_manifest() -> dict[str, Any]:
    """Return the manifest of a build with nothing in it."""
    return {"format": FORMAT, "steps": [], "class_labels": {}, "files": [], "units": []}


def read_manifest(folder: str | os.PathLike) -> dict[str, Any]:
    """Return the manifest of a build; raise ValueError where the folder is none."""
    try:
        text = (Path(folder) / MANIFEST).read_bytes()
    except OSError:
        raise _no_build(folder) from None
    return parse_manifest(text, folder)


def parse_manifest(text: bytes, folder: str | os.PathLike) -> dict[str, Any]:
    """Return the manifest in these bytes, after a check that it can be relied on.

    Args:
        text: What `manifest.json` holds.
        folder: The build, for the message.

    Raises:
        ValueError: If something is missing, of another type, or leads out of the folder.
    """
    try:
        manifest = json.loads(text)
        _require(manifest["format"] == FORMAT)
        for step in manifest["steps"]:
            _check_types(step, _STEP_TYPES)
            _require(all(isinstance(entry, dict) and "why" in entry for entry in step["dropped"]))
            _check_origin(step.get("origin", {}))
        for names in manifest["class_labels"].values():
            _require(isinstance(names, list) and all(isinstance(name, str) for name in names))
        for entry in manifest["files"]:
            _check_entry(entry)
        for entry in manifest["units"]:
            _require(entry["split"] in SPLITS and entry["path"] == f"units/{entry['split']}.parquet")
            _check_types(entry, {"sha256": str})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _no_build(folder) from None
    return manifest


def _no_build(folder: str | os.PathLike) -> ValueError:
    return ValueError(
        f"{folder}: expected a NEuRT build (a folder with a manifest.json that is whole), found none; "
        "make one with `neurt import` or `neurt simulate`"
    )


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError


def _check_types(entry: Mapping[str, Any], types: Mapping[str, Any]) -> None:
    _require(all(isinstance(entry[name], kind) for name, kind in types.items()))


def _check_origin(origin: Mapping[str, Any]) -> None:
    _require(all(isinstance(origin.get(name, ""), str) for name in ("title", "licence", "licence_name")))
    for name in ("citation", "changes"):
        _require(isinstance(origin.get(name, []), list))
    _require(all(isinstance(meaning, str) for meaning in origin.get("columns", {}).values()))


def _check_entry(entry: Mapping[str, Any]) -> None:
    # A manifest comes with a build from anywhere; what it says may not lead out of the folder.
    _check_types(entry, _ENTRY_TYPES)
    name, split = entry["recording_id"], entry["split"]
    _require(is_safe_name(name) and split in SPLITS and entry["path"] == path_of(name, split))
    _require(all(isinstance(value, str | None) for value in entry["labels"].values()))
    _require(all(kind in COLUMN_TYPES for kind in entry["columns"].values()))
    preparation = entry["source"].get("preparation", {})
    _check_types(preparation, {name: kind for name, kind in _PREPARATION_TYPES.items() if name in preparation})
    _require(all(_is_free(name) for name in (*entry["labels"], *entry["columns"])))


def is_safe_name(name: str) -> bool:
    """Whether a recording_id may be the name of a file, on any system."""
    return (
        _SAFE_NAME.fullmatch(name) is not None
        and _RESERVED.fullmatch(name) is None
        and len(name.encode()) <= _MOST_NAME_BYTES
    )


def path_of(recording_id: str, split: str) -> str:
    """Return the path of a recording's file below the build."""
    return f"data/{split}/{recording_id}.parquet"


def _is_free(column: str) -> bool:
    # Some tools that open Parquet files do not tell upper from lower case.
    return _SAFE_COLUMN.fullmatch(column) is not None and column.casefold() not in SCHEMA.names


def check_names(recording: Recording) -> None:
    """Raise ValueError unless its id may be the name of a file and its labels and columns those of columns."""
    name = recording.recording_id
    if not is_safe_name(name):
        raise ValueError(
            f"recording {name!r}: expected an id that is safe as a file name (letters, digits, . _ + = @ - and "
            f"spaces, beginning with a letter or digit, at most {_MOST_NAME_BYTES} bytes, no name of a device); "
            "rename it"
        )
    for what, names in (("label", recording.labels), ("column", recording.columns)):
        for column in names:
            if not _is_free(column):
                raise ValueError(
                    f"recording {name!r}: expected {what} names of letters, digits and _ that are no column of a "
                    f"build, got {column!r}; rename the {what}"
                )
    twice = repeated([column.casefold() for column in (*recording.labels, *recording.columns)])
    if twice:
        raise ValueError(f"recording {name!r}: expected names of labels and columns that differ, got two {twice[0]!r}")


def entry_of(recording: Recording, split: str) -> dict[str, Any]:
    """Return what the manifest says of a recording, as it comes back from JSON; sizes and digest are not in it.

    Raises:
        ValueError: If a text in it cannot be written as UTF-8.
    """
    placed = int(recording.positioned.sum())
    entry = {
        "recording_id": recording.recording_id,
        "split": split,
        "path": path_of(recording.recording_id, split),
        "subject_id": recording.subject_id,
        "session_id": recording.session_id,
        "neurons": recording.num_neurons,
        "neurons_with_positions": placed,
        # Rejected neurons are in the build on request, but in no window.
        "neighbour_channels": int((recording.positioned & recording.accepted).sum()) >= MIN_NEURONS,
        "coordinate_unit": recording.coordinate_unit if placed else None,
        "frames": recording.num_frames,
        "segments": len(recording.segment_starts),
        "sampling_rate": float(recording.sampling_rate),
        "trace_kind": recording.trace_kind,
        "modality": recording.modality,
        "labels": {name: None if value is None else str(value) for name, value in sorted(recording.labels.items())},
        "columns": {name: column_type(values) for name, values in sorted(recording.columns.items())},
        "source": dict(recording.source),
    }
    try:
        return json.loads(to_json(entry).encode())
    except UnicodeEncodeError as error:
        raise ValueError(
            f"recording {recording.recording_id!r}: expected names and labels that are text, got stray bytes in "
            f"{error.object[max(error.start - 30, 0) : error.end + 30]!a}; rename what they come from"
        ) from None


def to_json(value: Mapping[str, Any]) -> str:
    """Return JSON for a file; arrays become lists, other things text."""
    return json.dumps(value, indent=1, ensure_ascii=False, default=_plain) + "\n"


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def label_values(files: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the values of each label that recordings have, both in alphabetical order."""
    found: dict[str, set[str]] = {}
    for entry in files:
        for name, value in entry["labels"].items():
            found.setdefault(name, set()).update(() if value is None else (value,))
    return {name: sorted(found[name]) for name in sorted(found)}


def further_columns(files: Iterable[Mapping[str, Any]]) -> tuple[dict[str, str], list[str]]:
    """Return the columns (name → type) and the labels that any of these files has: `load_dataset` wants one set.

    Raises:
        ValueError: If a name is a label here and a column there, of two types, or spelled in two ways.
    """
    first: dict[str, tuple[str, str, str]] = {}
    for entry in files:
        kinds = {**entry["columns"], **dict.fromkeys(entry["labels"], "label")}
        for name, kind in kinds.items():
            same, kind_there, there = first.setdefault(name.casefold(), (name, kind, entry["recording_id"]))
            if (same, kind_there) != (name, kind):
                raise ValueError(
                    f"expected one name and type for a column in every recording, got {same} ({kind_there}) in "
                    f"{there!r} and {name} ({kind}) in {entry['recording_id']!r}; rename one, or write two builds"
                )
    labels = sorted(name for name, kind, _ in first.values() if kind == "label")
    return {name: kind for name, kind, _ in sorted(first.values()) if kind != "label"}, labels


def by_split(entries: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """Yield each split that has entries, with these."""
    for split in SPLITS:
        part = [entry for entry in entries if entry["split"] == split]
        if part:
            yield split, part


def merge_class_labels(
    present: Mapping[str, Sequence[str]], added: Mapping[str, Sequence[str]], files: Sequence[Mapping[str, Any]]
) -> dict[str, list[str]]:
    """Return the names of each label's classes: those that are there keep their ids, new ones are appended.

    Args:
        present: The class labels of the build.
        added: Those of the recordings that are added to it.
        files: The entries of all recordings.

    Raises:
        ValueError: If no recording has such a label, or one has a value that is not among its names.
    """
    merged = {
        name: list(dict.fromkeys([*present.get(name, ()), *added.get(name, ())])) for name in {**present, **added}
    }
    for name, names in merged.items():
        values = {entry["recording_id"]: entry["labels"].get(name) for entry in files if name in entry["labels"]}
        if not values:
            raise ValueError(f"expected class labels that recordings have, got {name!r}, which none has")
        for recording, value in values.items():
            if value is not None and value not in names:
                raise ValueError(
                    f"recording {recording!r}: expected label {name!r} among {some(names)}, got {value!r}; "
                    "name it among the classes or correct it"
                )
    return merged
