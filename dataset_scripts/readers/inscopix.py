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

from ..frame_times import holes, rate_of, segment_starts
from ..metadata import Facts
from ..recording import Recording
from ..wording import repeated, some
from .csv_columns import first_lines, header_of, read_columns, read_positions, steps_of_lines
from .source import (
    Found,
    NothingUsable,
    Reader,
    Source,
    as_float32,
    checked_trace_kind,
    file_source,
    files_with_suffix,
    identity,
    missing_rate,
    origin,
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
    steps = steps_of_lines(columns[0], 2, source.file)
    rate = facts.sampling_rate or rate_of(steps, partial(missing_rate, source.file))
    starts = segment_starts(holes(steps))
    accepted = np.array([status == "accepted" for status in statuses])
    kept = np.ones(len(names), dtype=bool) if all_rois else accepted
    if not kept.any():
        raise NothingUsable(f"none of its {len(names)} cells is accepted")
    traces = np.stack([as_float32(columns[column]) for column in np.flatnonzero(kept) + 1])
    properties, pixels = _properties_path(source.path), None
    # Centroids are there only if the metrics of the cells were computed.
    if properties.is_file() and set(_PROPERTIES) <= set(header_of(properties)):
        pixels = read_positions(properties, _PROPERTIES, names, traces.shape[1], source.file)[kept]
    centroids, unit = scaled_centroids(pixels, "px", facts.um_per_pixel)
    yield Recording(
        traces=traces,
        sampling_rate=rate,
        trace_kind=checked_trace_kind(trace_kind, None, source.file),
        roi_ids=tuple(name for name, keep in zip(names, kept, strict=True) if keep),
        centroids=centroids,
        coordinate_unit=unit,
        accepted=accepted[kept],
        segment_starts=starts,
        source=origin(
            source,
            facts,
            "inscopix",
            rois=len(names),
            accepted_rois=int(accepted.sum()),
            rate_from="Time(s)",
            read=(traces, pixels),
            notes={
                "undecided cells count as not accepted": "undecided" in statuses,
                "jumps in Time(s) begin a new segment": len(starts) > 1,
                "there is no table of properties with centroids beside it, and so there are no positions": (
                    pixels is None
                ),
            },
        ),
        **identity(source, facts),
    )


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


INSCOPIX = Reader(find_inscopix, read_inscopix, frozenset({"trace_kind", "all_rois"}))
