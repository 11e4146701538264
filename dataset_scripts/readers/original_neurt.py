"""Read the layout that the original NEuRT was trained from: a JSON list of fields and two CSV tables for each.

    [{"session_idx": 4, "scan_idx": 7, "field_idx": 1,
      "activity": {"file": "activity_4_7_1.csv"}, "centroids": {"file": "centroids_4_7_1.csv"}}, ...]

The names of the keys are free, as they were there: the tables are the two names that end in .csv, in the entry or one
level below. The table of positions is the one with a column `unit_id`; the other has one column for each of these
units, in any order, and one line for each frame.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..metadata import Facts
from ..recording import Recording
from ..wording import some
from .csv_columns import header_of, read_columns, read_positions
from .source import (
    Found,
    Reader,
    Source,
    as_float32,
    below,
    checked_rate,
    checked_trace_kind,
    files_with_suffix,
    identity,
    origin,
    scaled_centroids,
)

_MOST_JSON = 2**22
_ID = "unit_id"
_INDEX_COLUMNS = ("", "index", "frame", "Unnamed: 0")
_POSITIONS = {
    ("x_um", "y_um"): "um",
    ("um_x", "um_y"): "um",
    ("x_px", "y_px"): "px",
    ("px_x", "px_y"): "px",
    ("x", "y"): None,
    ("centroid_x", "centroid_y"): None,
}


def find_original_neurt(root: Path) -> Found:
    """Find JSON lists of fields at or below a path; the tables they name are claimed.

    The `file` of a field is the path of the list with its place in it, "meta.json#0" for the first.
    """
    sources, passed_over, claimed = [], [], set()
    for path in files_with_suffix(root, ".json"):
        try:
            entries = _read_list(path)
        except ValueError as error:
            passed_over.append((below(path, root), f"it is no list of fields in JSON ({error})"))
            continue
        for index, entry in enumerate(entries):
            sources.append(_source(path, root, index, entry))
            for name in _table_names(entry):
                with contextlib.suppress(ValueError, OSError):
                    claimed.add(_table_path(path.parent, name))
    return Found(sources, passed_over, frozenset(claimed))


def _read_list(path: Path) -> list[Any]:
    """Return the entries of a list of fields; nothing for JSON of other kinds.

    Raises:
        ValueError: If the file begins like a list and is no JSON.
    """
    with open(path, "rb") as file:
        text = file.read(_MOST_JSON + 1).strip()
    if not text.startswith(b"[") or len(text) > _MOST_JSON:
        return []
    try:
        entries = json.loads(text)
    except RecursionError:
        return []
    return entries if any(len(_table_names(entry)) == 2 for entry in entries) else []


def _table_names(entry: Any) -> list[str]:
    """Return the names that end in .csv in an entry or one level below, each once."""
    values = _values(entry)
    values = [inner for value in values for inner in (value, *_values(value))]
    return list(dict.fromkeys(v for v in values if isinstance(v, str) and v.lower().endswith(".csv")))


def _values(container: Any) -> list[Any]:
    return (
        list(container.values()) if isinstance(container, dict) else container if isinstance(container, list) else []
    )


def _source(path: Path, root: Path, index: int, entry: Any) -> Source:
    numbers = [
        str(entry.get(key)) if isinstance(entry, dict) else "" for key in ("session_idx", "scan_idx", "field_idx")
    ]
    session, field = f"{path.stem}_{index}", None
    recording = session
    if all(re.fullmatch(r"\d{1,9}", number) for number in numbers):
        session, field = "session_{}_scan_{}".format(*numbers), int(numbers[2])
        recording = f"{session}_field_{field}"
    above = [] if path == root else path.relative_to(root).parent.parts
    file = f"{below(path, root)}#{index}"
    return Source(path, file, "_".join([*above, recording]), "_".join([*above, session]), field)


def _table_path(folder: Path, name: str) -> Path:
    """Return the path of a table; raise ValueError where its name leads out of the folder of the list."""
    path = folder / name
    if "\0" in name or not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{folder}: expected names of tables in this folder, got {name!r:.80}, which leads out of it")
    return path


def read_original_neurt(source: Source, facts: Facts, *, trace_kind: str | None = None) -> Iterator[Recording]:
    """Read one field.

    Args:
        source: The list, with the place of the field in `file`.
        facts: What is stated about it; the sampling rate must be, and the size of pixels if positions have no unit.
        trace_kind: What the traces are, which the layout does not say.

    Raises:
        ValueError: If tables are not there, lie elsewhere, are damaged or of other units, or something is unstated.
    """
    entry = _read_list(source.path)[int(source.file.rpartition("#")[2])]
    activity, centroids = _tables(source, entry)
    header = header_of(activity)
    numbers = range(1 if header[:1] and header[0] in _INDEX_COLUMNS else 0, len(header))
    units = [header[column] for column in numbers]
    if not units:
        raise ValueError(f"{source.file}: expected a column for each unit in {activity.name}, got none")
    columns = read_columns(activity, header_lines=1, columns=len(header), numbers=numbers)
    traces = np.stack([as_float32(columns[column]) for column in numbers])
    names, unit = _columns_of_positions(centroids, facts.um_per_pixel)
    pixels = read_positions(centroids, names, units, traces.shape[1], source.file)
    positions, unit = scaled_centroids(pixels, unit, facts.um_per_pixel)
    yield Recording(
        traces=traces,
        sampling_rate=checked_rate(facts.sampling_rate, source.file, "none, since this layout has no place for it"),
        trace_kind=checked_trace_kind(trace_kind, None, source.file),
        roi_ids=tuple(units),
        centroids=positions,
        coordinate_unit=unit,
        source=origin(source, facts, "original-neurt", rate_from="stated", read=(traces, positions), notes={}),
        **identity(source, facts),
    )


def _tables(source: Source, entry: Any) -> tuple[Path, Path]:
    """Return the paths of the table of activity and of that of positions."""
    paths = [_table_path(source.path.parent, name) for name in _table_names(entry)]
    missing = [path.name for path in paths if not path.is_file()]
    if len(paths) != 2 or missing:
        got = f"no file {some(missing)!r:.200}" if missing else f"{len(paths)} names"
        raise ValueError(f"{source.file}: expected the names of two CSV tables beside the list, got {got}")
    paths.sort(key=lambda path: _ID in header_of(path))
    if [_ID in header_of(path) for path in paths] != [False, True]:
        names = repr(some([path.name for path in paths]))
        raise ValueError(f"{source.file}: expected a column {_ID} in one of {names}, the table of positions")
    return paths[0], paths[1]


def _columns_of_positions(path: Path, um_per_pixel: float | None) -> tuple[tuple[str, str, str], str]:
    """Return the columns of ids, x and y, and the unit of positions."""
    header = header_of(path)
    pair = next((pair for pair in _POSITIONS if set(pair) <= set(header)), None)
    if pair is None:
        raise ValueError(f"{path}: expected columns x_um, y_um or x_px, y_px beside {_ID}, got {some(header)!r:.200}")
    unit = _POSITIONS[pair] or ("px" if um_per_pixel else None)
    if unit is None:
        raise ValueError(
            f"{path}: expected positions with a unit, got columns {' and '.join(pair)}; pass --um-per-pixel (1 if "
            "they are in µm), or name the columns x_um, y_um"
        )
    return (_ID, *pair), unit


ORIGINAL_NEURT = Reader(find_original_neurt, read_original_neurt, frozenset({"trace_kind"}))
