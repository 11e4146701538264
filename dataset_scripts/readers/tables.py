"""Read CSV tables: one row per frame, one column per neuron, the neurons named in the header.

A column `time_s` gives the time of each frame in seconds, and with it the sampling rate; any other is a neuron.
Positions come from a second CSV, one row per neuron: `roi_id` and `x_um, y_um` or `x_px, y_px`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..frame_times import holes, rate_of, segment_starts
from ..metadata import Facts
from ..recording import Recording
from .csv_columns import header_of, read_columns, read_positions, steps_of_lines
from .source import (
    Found,
    Reader,
    Source,
    as_float32,
    checked_rate,
    checked_trace_kind,
    find_files,
    identity,
    origin,
    scaled_centroids,
)

_TIME = "time_s"
# Lines that may all rise by chance: once in three million traces of noise.
_FEW_LINES = 10


def find_csv(root: Path) -> Found:
    """Find the CSV tables at or below a path; tables of files or positions are passed over."""
    return find_files(root, _why_not, ".csv")


def _why_not(path: Path) -> str | None:
    header = header_of(path)
    if "file" in header or "roi_id" in header:
        return f"it is a table of {'files' if 'file' in header else 'positions'}"
    return None if header else "it has an empty first line"


def read_csv(source: Source, facts: Facts, *, trace_kind: str | None = None) -> Iterator[Recording]:
    """Read a CSV table, and the positions beside it where `facts.positions` names their file.

    Args:
        source: The table.
        facts: What is stated about it.
        trace_kind: What the traces are; a CSV cannot say.

    Raises:
        ValueError: If a cell is no number, a column has no name or is there twice, the first line holds values, times
            do not increase or are irregular, a column of another name only increases, or the positions are those of
            other neurons.
    """
    header = header_of(source.path)
    if "" in header:
        raise ValueError(
            f"{source.file}: expected a name for every column, got none for column {header.index('') + 1}; name or "
            "remove it"
        )
    _check_names(header, source.file)
    neurons = [name for name in header if name != _TIME]
    if not neurons:
        raise ValueError(f"{source.file}: expected one column per neuron, got none beside {_TIME}")
    columns = read_columns(source.path, header_lines=1, columns=len(header), numbers=range(len(header)))
    for name in neurons:
        _check_no_clock(columns[header.index(name)], name, source.file)
    traces = np.stack([as_float32(columns[header.index(name)]) for name in neurons])
    centroids, unit = None, None
    if facts.positions:
        pixels, unit = _read_positions(_positions_file(source, facts.positions), neurons, traces.shape[1], source.file)
        centroids, unit = scaled_centroids(pixels, unit, facts.um_per_pixel)
    rate, starts = facts.sampling_rate, (0,)
    if _TIME in header:
        rate, starts = _clock(columns[header.index(_TIME)], facts.sampling_rate, source.file)
    yield Recording(
        traces=traces,
        sampling_rate=checked_rate(rate, source.file, f"no column {_TIME}"),
        trace_kind=checked_trace_kind(trace_kind, None, source.file),
        roi_ids=tuple(neurons),
        centroids=centroids,
        coordinate_unit=unit,
        segment_starts=starts,
        source=origin(
            source,
            facts,
            "csv",
            rate_from=_TIME,
            read=(traces, centroids),
            notes={f"jumps in {_TIME} begin a new segment": len(starts) > 1},
        ),
        **identity(source, facts),
    )


def _check_names(header: Sequence[str], file: str) -> None:
    """Refuse a first line of values, which would be lost as names; whole numbers are names that pandas gives."""
    try:
        values = [float(name) for name in header]
    except ValueError:
        return
    if not all(value >= 0 and value.is_integer() for value in values):
        raise ValueError(
            f"{file}: expected the names of the columns in the first line, got numbers ({', '.join(header):.40} ...); "
            "write a line of names above them"
        )


def _check_no_clock(values: np.ndarray, name: str, file: str) -> None:
    """Refuse times and frame numbers that would be taken for the trace of a neuron."""
    if len(values) > _FEW_LINES and (np.diff(values) > 0).all():
        raise ValueError(
            f"{file}: expected the trace of a neuron in each column but {_TIME}, got {name!r:.80}, which increases "
            f"from each line to the next, as times and frame numbers do; call it {_TIME} if it holds seconds, else "
            "remove it"
        )


def _positions_file(source: Source, positions: str) -> Path:
    """Return the file beside the recording, or the one that the path leads to from where the command runs."""
    beside = source.path.parent / positions
    return Path(positions) if Path(positions).is_file() and not beside.exists() else beside


def _read_positions(path: Path, neurons: Sequence[str], frames: int, file: str) -> tuple[np.ndarray, str]:
    """Return positions (N, 2) and their unit."""
    if not path.exists():
        raise ValueError(f"{path}: expected a CSV file of positions, found none; correct its path")
    header = header_of(path)
    units = [unit for unit in ("um", "px") if {f"x_{unit}", f"y_{unit}"} <= set(header)]
    if "roi_id" not in header or len(units) != 1:
        raise ValueError(f"{path}: expected columns roi_id and x_um, y_um or x_px, y_px, got {', '.join(header):.200}")
    names = ("roi_id", f"x_{units[0]}", f"y_{units[0]}")
    return read_positions(path, names, neurons, frames, file), units[0]


def _clock(times: np.ndarray, stated: float | None, file: str) -> tuple[float, tuple[int, ...]]:
    """Return the sampling rate in Hz and where segments start, which is after each jump in the times."""
    steps = steps_of_lines(times, 1, file)
    rate = rate_of(steps, lambda got: _irregular(got, file))
    if stated and not np.isclose(stated, rate, rtol=0.01):
        raise ValueError(
            f"{file}: expected --sampling-rate near the {rate:.6g} Hz of its column {_TIME}, got {stated:g}"
        )
    return stated or rate, segment_starts(holes(steps))


def _irregular(got: str, file: str) -> ValueError:
    return ValueError(f"{file}: expected {_TIME} to give a sampling rate, got {got}; remove it and state the rate")


CSV = Reader(find_csv, read_csv, frozenset({"trace_kind"}))
