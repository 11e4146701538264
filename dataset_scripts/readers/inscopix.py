"""Read cell sets that Inscopix Data Processing or its Python library exported as CSV.

     , C00, C01, C02
    Time(s)/Cell Status, accepted, undecided, rejected
    0, 0.12, 0.53, -0.08
    0.05, 0.11, 0.49, -0.07

Beside it may lie the properties of the cells, `{name}-props.csv`, with the columns Name, Status, CentroidX and
CentroidY (pixels) and others that are not read.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ..metadata import Facts
from ..recording import Recording
from ..wording import repeated, some
from .csv_columns import first_lines, read_columns
from .frame_times import holes, rate_of, segment_starts
from .source import (
    Found,
    NothingUsable,
    Reader,
    Source,
    checked_trace_kind,
    digest,
    file_source,
    files_with_suffix,
    identity,
    missing_rate,
    scaled_centroids,
)

_STATUS = re.compile(r"time ?\(s\)/cell status", re.IGNORECASE)
_STATUSES = ("accepted", "undecided", "rejected")
_PROPERTIES = ("Name", "CentroidX", "CentroidY")


def find_inscopix(root: Path) -> Found:
    """Find the exported tables at or below a path, by their second line; the properties beside them are claimed."""
    sources, claimed = [], set()
    for path in files_with_suffix(root, ".csv"):
        if _is_cell_set(path):
            sources.append(file_source(path, root))
            claimed |= {path, _properties_path(path)}
    return Found(sources, [], frozenset(claimed))


def _is_cell_set(path: Path) -> bool:
    with open(path, "rb") as file:
        file.readline()
        return _STATUS.match(file.readline(80).decode(errors="replace").strip('" \t')) is not None


def _properties_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}-props.csv")


def read_inscopix(
    source: Source, facts: Facts, *, trace_kind: str | None = None, all_rois: bool = False
) -> Iterator[Recording]:
    """Read one table, and the properties beside it.

    Args:
        source: The table.
        facts: What is stated about it. A stated sampling rate wins over the times.
        trace_kind: What the traces are, which the table does not say.
        all_rois: Keep undecided and rejected cells too; `accepted` says which those are.

    Raises:
        ValueError: If the table is damaged, times go back or are irregular, or properties are those of other cells.
    """
    names, statuses = _read_header(source)
    columns = read_columns(source.path, header_lines=2, columns=len(names) + 1, numbers=range(len(names) + 1))
    rate, starts = _clock(columns.pop(0), facts.sampling_rate, source.file)
    accepted = np.array([status == "accepted" for status in statuses])
    kept = np.ones(len(names), dtype=bool) if all_rois else accepted
    if not kept.any():
        raise NothingUsable(f"none of its {len(names)} cells is accepted")
    with np.errstate(over="ignore"):
        traces = np.stack([columns[i + 1].astype(np.float32) for i in np.flatnonzero(kept)])
    pixels = _read_centroids(_properties_path(source.path), names, source.file)
    centroids, unit = (None, None) if pixels is None else scaled_centroids(pixels[kept], "px", facts.um_per_pixel)
    yield Recording(
        traces=traces,
        sampling_rate=rate,
        trace_kind=checked_trace_kind(trace_kind, None, source.file),
        roi_ids=tuple(name for name, keep in zip(names, kept, strict=True) if keep),
        centroids=centroids,
        coordinate_unit=unit,
        accepted=accepted[kept],
        segment_starts=starts,
        source={
            "file": source.file,
            "format": "inscopix",
            "rois": len(names),
            "accepted_rois": int(accepted.sum()),
            "sampling_rate_from": "stated" if facts.sampling_rate else "Time(s)",
            "um_per_pixel": facts.um_per_pixel,
            "sha256": digest(traces, pixels),
            "notes": _notes(statuses, starts, pixels),
        },
        **identity(source, facts),
    )


def _notes(statuses: list[str], starts: tuple[int, ...], pixels: np.ndarray | None) -> list[str]:
    notes = {
        "undecided cells count as not accepted": "undecided" in statuses,
        "jumps in Time(s) begin a new segment": len(starts) > 1,
        "there is no table of properties with centroids beside it, and so there are no positions": pixels is None,
    }
    return [note for note, holds in notes.items() if holds]


def _read_header(source: Source) -> tuple[list[str], list[str]]:
    """Return the name and the status of each cell."""
    names, statuses = (line[1:] for line in first_lines(source.path, 2))
    if not names or len(names) != len(statuses):
        raise ValueError(
            f"{source.file}: expected a name and a status for each cell at its top, got {len(names)} names and "
            f"{len(statuses)} statuses; export it again"
        )
    unknown = [status for status in statuses if status not in _STATUSES]
    if unknown:
        raise ValueError(f"{source.file}: expected statuses {', '.join(_STATUSES)}, got {unknown[0]!r:.80}")
    if repeated(names) or not all(names):
        raise ValueError(f"{source.file}: expected each cell name once, got {some(repeated(names)) or 'none'!r:.80}")
    return names, statuses


def _clock(times: np.ndarray, stated: float | None, file: str) -> tuple[float, tuple[int, ...]]:
    """Return the sampling rate in Hz and where segments start, which is after dropped frames and between movies."""
    steps = np.diff(times)
    if not len(steps) or not np.isfinite(times).all():
        raise ValueError(f"{file}: expected two or more lines, each with its time, got {len(times)}; export it again")
    if not (steps > 0).all():
        line = int(np.argmin(steps > 0)) + 4
        raise ValueError(f"{file}: expected times that increase, got a step back at line {line}; export it again")
    return stated or rate_of(steps, partial(missing_rate, file)), segment_starts(holes(steps))


def _read_centroids(path: Path, names: list[str], file: str) -> np.ndarray | None:
    """Return positions (x, y) in pixels (N, 2), or None where there is no table of them."""
    header = first_lines(path)[0] if path.is_file() else []
    # Centroids are there only if the metrics of the cells were computed.
    if not set(_PROPERTIES) <= set(header):
        return None
    name, x, y = (header.index(column) for column in _PROPERTIES)
    columns = read_columns(path, header_lines=1, columns=len(header), numbers=[x, y], texts=[name])
    if sorted(columns[name]) != sorted(names):
        raise ValueError(f"{file}: expected properties of its own {len(names)} cells in {path.name}, got others")
    place = dict(zip(columns[name], zip(columns[x], columns[y], strict=True), strict=True))
    return np.array([place[cell] for cell in names])


INSCOPIX = Reader(find_inscopix, read_inscopix, frozenset({"trace_kind", "all_rois"}))
