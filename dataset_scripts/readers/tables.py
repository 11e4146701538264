"""Read CSV tables: one row per frame, one column per neuron, the neurons named in the header.

A column `time_s` gives the time of each frame in seconds, and with it the sampling rate. Positions come from a second
CSV, one row per neuron: `roi_id` and `x_um, y_um` or `x_px, y_px`.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..metadata import Facts
from ..recording import Recording
from ..wording import repeated, some
from .source import (
    Found,
    Reader,
    Source,
    cannot_read,
    checked_trace_kind,
    digest,
    file_source,
    files_with_suffix,
    identity,
    missing_rate,
    scaled_centroids,
)

_TIME = "time_s"


def find_csv(root: Path) -> Found:
    """Find the CSV tables at or below a path; tables of files or positions are passed over."""
    sources, passed_over = [], []
    for path in files_with_suffix(root, ".csv"):
        source = file_source(path, root)
        header = _header(path)
        if "file" in header or "roi_id" in header:
            passed_over.append((source.file, f"it is a table of {'files' if 'file' in header else 'positions'}"))
        else:
            sources.append(source)
    return Found(sources, passed_over)


def read_csv(source: Source, facts: Facts, *, trace_kind: str | None = None) -> Iterator[Recording]:
    """Read a CSV table, and the positions beside it where `facts.positions` names their file.

    Args:
        source: The table.
        facts: What is stated about it.
        trace_kind: What the traces are; a CSV cannot say.

    Raises:
        ValueError: If a cell is no number, a column has no name or is there twice, times do not increase, or the
            positions are those of other neurons.
    """
    table = _read_numbers(source.path)
    neurons = [name for name in table.columns if name != _TIME]
    if not neurons:
        raise ValueError(f"{source.file}: expected one column per neuron, got none beside {_TIME}")
    traces = np.ascontiguousarray(table[neurons].to_numpy(dtype=np.float32).T)
    centroids, unit = None, None
    if facts.positions:
        positions = _read_positions(source.path.parent / facts.positions)
        _require_these_rois(positions, neurons, len(table), source.file)
        centroids, unit = _centroids(positions.loc[neurons], facts.um_per_pixel)
    rate, starts = _clock(table[_TIME].to_numpy() if _TIME in table else None, facts.sampling_rate, source.file)
    yield Recording(
        traces=traces,
        sampling_rate=rate,
        trace_kind=checked_trace_kind(trace_kind, None, source.file),
        roi_ids=tuple(neurons),
        centroids=centroids,
        coordinate_unit=unit,
        segment_starts=starts,
        source={
            "file": source.file,
            "format": "csv",
            "sampling_rate_from": "stated" if facts.sampling_rate else _TIME,
            "um_per_pixel": facts.um_per_pixel,
            "sha256": digest(traces, centroids),
            "notes": ["jumps in time_s begin a new segment"] if len(starts) > 1 else [],
        },
        **identity(source, facts),
    )


def _header(path: Path) -> list[str]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            header = [cell.strip() for cell in next(csv.reader(file), [])]
    except (UnicodeDecodeError, csv.Error) as error:
        raise cannot_read(path, "a CSV table in UTF-8", error) from error
    if not header:
        raise ValueError(f"{path}: expected a CSV table with a header, got an empty first line")
    return header


def _read_table(path: Path) -> pd.DataFrame:
    header = _header(path)
    unnamed = [i for i, name in enumerate(header, start=1) if not name]
    if unnamed:
        raise ValueError(
            f"{path}: expected a name for every column, got none for column {unnamed[0]}; name or remove it"
        )
    if repeated(header):
        raise ValueError(f"{path}: expected each column once, got {some(repeated(header))} more than once")
    try:
        table = pd.read_csv(path, header=None, skiprows=1, encoding="utf-8-sig", low_memory=False)
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path}: expected lines of numbers below the header, got none") from None
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise cannot_read(path, "a CSV table in UTF-8", error) from error
    if table.shape[1] != len(header):
        raise ValueError(f"{path}: expected {len(header)} cells a line as in the header, got {table.shape[1]}")
    return table.set_axis(header, axis=1)


def _read_numbers(path: Path) -> pd.DataFrame:
    table = _read_table(path)
    for name in table.columns:
        if table[name].dtype.kind not in "biuf":
            numbers = pd.to_numeric(table[name], errors="coerce")
            row = int((numbers.isna() & table[name].notna()).to_numpy().argmax())
            got = str(table[name].iloc[row])
            raise ValueError(
                f"{path}: expected numbers below the header, got {got!r} in column {name!r}, line {row + 2}"
            )
    return table


def _read_positions(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise ValueError(f"{path}: expected a CSV file of positions, found none; give its path beside the recording")
    table = _read_table(path)
    units = [unit for unit in ("um", "px") if {f"x_{unit}", f"y_{unit}"} <= set(table.columns)]
    if "roi_id" not in table or len(units) != 1:
        raise ValueError(
            f"{path}: expected columns roi_id and x_um, y_um or x_px, y_px, got {', '.join(table.columns)}"
        )
    positions = table.set_index(table["roi_id"].astype(str).str.strip())[[f"x_{units[0]}", f"y_{units[0]}"]]
    if positions.index.has_duplicates:
        raise ValueError(
            f"{path}: expected each roi_id once, got {positions.index[positions.index.duplicated()][0]!r} again"
        )
    try:
        return positions.astype(np.float64)
    except ValueError as error:
        raise ValueError(f"{path}: expected numbers as positions ({error})") from error


def _require_these_rois(positions: pd.DataFrame, neurons: Sequence[str], frames: int, file: str) -> None:
    missing = [name for name in neurons if name not in positions.index]
    if missing:
        turned = len(positions) == frames and frames != len(neurons)
        hint = (
            "the table looks transposed: frames go down, neurons across" if turned else "leave a cell empty if unknown"
        )
        raise ValueError(
            f"{file}: expected a position for each of its {len(neurons)} columns, got {len(positions)} positions, "
            f"none for {missing[0]!r}; {hint}"
        )
    unknown = [roi for roi in positions.index if roi not in set(neurons)]
    if unknown:
        raise ValueError(
            f"{file}: expected positions of its own columns, got one for {unknown[0]!r}, which is no column"
        )


def _centroids(positions: pd.DataFrame, um_per_pixel: float | None) -> tuple[np.ndarray, str]:
    return scaled_centroids(positions.to_numpy(), positions.columns[0].removeprefix("x_"), um_per_pixel)


def _clock(times: np.ndarray | None, stated: float | None, file: str) -> tuple[float, tuple[int, ...]]:
    """Return the sampling rate in Hz and where segments start, which is after each jump in the times."""
    if times is None or len(times) < 2:
        if not stated:
            raise missing_rate(file, f"no column {_TIME}")
        return stated, (0,)
    steps = np.diff(times)
    if not (steps > 0).all():
        line = int(np.argmin(steps > 0)) + 3
        raise ValueError(f"{file}: expected {_TIME} to increase from line to line, got a step back at line {line}")
    rate = 1 / float(np.median(steps))
    if stated and not np.isclose(stated, rate, rtol=0.01):
        raise ValueError(
            f"{file}: expected --sampling-rate near the {rate:.6g} Hz of its column {_TIME}, got {stated:g}"
        )
    # A step of more than one and a half frames is a lost frame or a new trial; nothing runs on across it.
    return stated or rate, (0, *(np.flatnonzero(steps > 1.5 / rate) + 1).tolist())


CSV = Reader(find_csv, read_csv, frozenset({"trace_kind"}))
