"""A recording as the rows of one Parquet file, and back; and the same rows without their traces, of many recordings.

    SCHEMA | further columns of each neuron, by name | labels of the recording, by name, as text

Text columns and labels look alike in a file, so its metadata name the labels.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..writing_aside import file_aside
from .recording import COLUMN_TYPES, Recording, column_type

SCHEMA = pa.schema(
    [
        ("recording_id", pa.string()),
        ("subject_id", pa.string()),
        ("session_id", pa.string()),
        ("field", pa.int32()),
        ("roi_id", pa.string()),
        ("unit_id", pa.int64()),
        ("trace", pa.list_(pa.float32())),
        ("sampling_rate", pa.float64()),
        ("x_um", pa.float32()),
        ("y_um", pa.float32()),
        ("z_um", pa.float32()),
        ("x_px", pa.float32()),
        ("y_px", pa.float32()),
        ("trace_kind", pa.string()),
        ("modality", pa.string()),
        ("brain_area", pa.string()),
        ("indicator", pa.string()),
        ("segment_starts", pa.list_(pa.int32())),
        ("accepted", pa.bool_()),
    ]
)
# Not in the rows of `write_units`: one value or more for each frame or trial.
LONG_COLUMNS = ("trace", "segment_starts")

_COLUMN_TYPES = {name: pa.type_for_alias(name) for name in COLUMN_TYPES}
_NEVER_NULL = (
    "recording_id",
    "subject_id",
    "session_id",
    "roi_id",
    "sampling_rate",
    "trace_kind",
    "segment_starts",
    "accepted",
)
_DAMAGE = (OSError, ValueError, LookupError, TypeError, MemoryError, RecursionError, pa.ArrowException)
# The Hub's viewer reads whole row groups.
_ROW_GROUP_BYTES = 4 * 2**20
_UNITS_PER_ROW_GROUP = 20_000
# A few bytes can stand for any number of equal values: no more than this on the word of a file, or, beyond it, no more
# than this many times its size.
_MOST_CLAIMED_BYTES, _MOST_COMPRESSION = 2**30, 4096
# NumPy pads texts to the longest: one long text in a foreign file could ask for all memory.
_MOST_TEXT_BYTES = 2**28


def build_schema(columns: Mapping[str, str], labels: Iterable[str]) -> pa.Schema:
    """Return the schema of a file with these further columns (name → type in `COLUMN_TYPES`) and labels."""
    labels = sorted(labels)
    further = [pa.field(name, _COLUMN_TYPES[kind]) for name, kind in sorted(columns.items())]
    texts = [pa.field(name, pa.string()) for name in labels]
    return pa.schema([*SCHEMA, *further, *texts], metadata={"neurt": json.dumps({"labels": labels})})


def write_recording(path: Path, recording: Recording) -> None:
    """Write a recording as one Parquet file, in row groups of a few megabytes."""
    rows = max(1, _ROW_GROUP_BYTES // (4 * recording.num_frames))
    columns = {name: column_type(values) for name, values in recording.columns.items()}
    schema = build_schema(columns, recording.labels)
    with _writer(path, schema) as writer:
        for start in range(0, recording.num_neurons, rows):
            writer.write_table(_table(recording, slice(start, start + rows), schema))


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    # A dictionary helps repeated strings only; on traces it costs time and space. Least and most of a trace help no
    # search, those of other columns do; the page index lets a reader fetch single rows.
    repeated = [field.name for field in schema if pa.types.is_string(field.type) and field.name != "roi_id"]
    searched = [field.name for field in schema if field.name not in LONG_COLUMNS]
    return pq.ParquetWriter(
        path, schema, compression="zstd", use_dictionary=repeated, write_statistics=searched, write_page_index=True
    )


def _table(recording: Recording, rows: slice, schema: pa.Schema) -> pa.Table:
    traces = np.ascontiguousarray(recording.traces[rows], dtype=np.float32)
    n, frames = traces.shape
    offsets = np.arange(0, n * frames + 1, frames, dtype=np.int32)
    columns = {
        "roi_id": [str(roi) for roi in recording.roi_ids[rows]],
        "trace": pa.ListArray.from_arrays(offsets, traces.reshape(-1)),
        "unit_id": _unit_ids(recording, rows),
        "segment_starts": [list(recording.segment_starts)] * n,
        "accepted": np.asarray(recording.accepted[rows], dtype=bool),
        **_positions(recording, rows),
        **{name: _nullable(values[rows]) for name, values in recording.columns.items()},
    }
    constant = {name: getattr(recording, name, None) for name in SCHEMA.names if name not in columns}
    constant |= recording.labels
    arrays = [_column(columns.get(field.name), constant.get(field.name), field.type, n) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _column(values: Any, constant: Any, kind: pa.DataType, length: int) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    if values is not None:
        return pa.array(values, type=kind, from_pandas=True)
    if constant is not None and pa.types.is_string(kind):
        constant = str(constant)
    return pa.repeat(pa.scalar(constant, type=kind), length)


def _nullable(values: np.ndarray) -> pa.Array:
    return pa.array(np.ma.getdata(values), mask=np.ma.getmaskarray(values))


def _unit_ids(recording: Recording, rows: slice) -> pa.Array | None:
    if recording.unit_ids is None:
        return None
    unit_ids = np.asarray(recording.unit_ids[rows], dtype=np.int64)
    return pa.array(unit_ids, mask=unit_ids < 0)


def _positions(recording: Recording, rows: slice) -> dict[str, pa.Array]:
    if recording.centroids is None:
        return {}
    centroids = np.asarray(recording.centroids[rows], dtype=np.float32)
    unknown = ~np.isfinite(centroids)
    columns = enumerate(("x", "y"))
    unit = recording.coordinate_unit
    return {f"{axis}_{unit}": pa.array(centroids[:, i], mask=unknown[:, i]) for i, axis in columns}


def add_columns(path: Path, columns: Mapping[str, str], labels: Iterable[str]) -> bool:
    """Give a file these columns and labels, empty where it has them not; returns whether it had to be changed.

    Raises:
        ValueError: If the file cannot be read.
    """
    schema = build_schema(columns, labels)
    with _readable(path):
        if pq.read_schema(path).names == schema.names:
            return False
    with file_aside(path, replace=True) as aside, _writer(aside, schema) as writer:
        for table in _row_groups(path):
            for name in set(schema.names) - set(table.column_names):
                table = table.append_column(name, pa.nulls(table.num_rows, schema.field(name).type))
            writer.write_table(table.select(schema.names))
    return True


def _row_groups(path: Path) -> Iterator[pa.Table]:
    with _readable(path), pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)


def write_units(path: Path, recordings: Sequence[Path], columns: Mapping[str, str], labels: Iterable[str]) -> None:
    """Write the rows of many files of a build without their `LONG_COLUMNS` as one Parquet file.

    Args:
        path: The file to make.
        recordings: Files that all have these columns and labels, in the order of the rows.
        columns: As for `build_schema`.
        labels: As for `build_schema`.

    Raises:
        ValueError: If a file cannot be read.
    """
    schema = build_schema(columns, labels)
    short = [name for name in schema.names if name not in LONG_COLUMNS]
    schema = pa.schema([schema.field(name) for name in short], metadata=schema.metadata)
    with file_aside(path, replace=True) as aside, _writer(aside, schema) as writer:
        for table in _joined(_read_columns(recording, short) for recording in recordings):
            writer.write_table(table.cast(schema))


def _read_columns(path: Path, names: Sequence[str]) -> pa.Table:
    with _readable(path), pq.ParquetFile(path) as file:
        return file.read(names)


def _joined(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Join tables to ones of at least `_UNITS_PER_ROW_GROUP` rows; the last may be shorter."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= _UNITS_PER_ROW_GROUP:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def read_recording(
    path: str | os.PathLike, source: Mapping[str, Any] | None = None, content: bytes | None = None
) -> Recording:
    """Read one file of a build.

    Columns and labels without any value are left out.

    Args:
        path: `data/{split}/{recording_id}.parquet`.
        source: What the manifest says of its origin.
        content: The bytes of a file that is not on this machine; `path` then only names it.

    Raises:
        ValueError: If the file is missing, truncated, or not a recording.
    """
    with _readable(path), pq.ParquetFile(path if content is None else pa.BufferReader(content)) as file:
        schema = file.schema_arrow
        _check_schema(schema)
        size = os.path.getsize(path) if content is None else len(content)
        _check_claim(file.metadata.num_rows, len(schema), "columns", size)
        rows = file.read([name for name in schema.names if name != "trace"])
        _check_rows(rows)
        return _recording_of(rows, _read_traces(file, len(rows), size), source or {})


@contextlib.contextmanager
def _readable(path: str | os.PathLike) -> Iterator[None]:
    """Turn the many ways in which a damaged Parquet file fails into one plain line."""
    try:
        yield
    except _DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path}: expected a recording of a NEuRT build, got a file that cannot be read ({reason}); build it again"
        ) from error


def _check_schema(schema: pa.Schema) -> None:
    if len(set(schema.names)) < len(schema):
        raise ValueError("two columns have one name")
    for field in SCHEMA:
        if field.name not in schema.names or schema.field(field.name).type != field.type:
            raise ValueError(f"no column {field.name} of type {field.type}")
    for field in schema:
        if field.name not in SCHEMA.names and field.type not in _COLUMN_TYPES.values():
            raise ValueError(f"column {field.name} is of type {field.type}")


def _check_claim(rows: int, values: int, what: str, size: int) -> None:
    """Refuse rows of this many values of four bytes that a file of this size can hardly hold."""
    if 4 * rows * values > max(_MOST_CLAIMED_BYTES, _MOST_COMPRESSION * size):
        raise ValueError(f"it claims {rows} rows of {values} {what} in {size} bytes")


def _check_rows(rows: pa.Table) -> None:
    if not len(rows):
        raise ValueError("it has no rows")
    for name in _NEVER_NULL:
        if rows[name].null_count:
            raise ValueError(f"{name} is missing in {rows[name].null_count} of {len(rows)} rows")
    if len(rows["recording_id"].unique()) > 1:
        raise ValueError("it holds rows of several recordings")


def _read_traces(file: pq.ParquetFile, rows: int, size: int) -> np.ndarray:
    """Read the traces (N, T) a row group at a time, which keeps the peak near the size of the result."""
    traces, row = None, 0
    for group in range(file.num_row_groups):
        block = _block(file.read_row_group(group, columns=["trace"])["trace"].combine_chunks())
        if traces is None:
            _check_claim(rows, block.shape[1], "frames", size)
            traces = np.empty((rows, block.shape[1]), dtype=np.float32)
        traces[row : row + len(block)] = block
        row += len(block)
    if row != rows:
        raise ValueError(f"{row} traces in {rows} rows")
    return traces


def _block(column: pa.ListArray) -> np.ndarray:
    values = column.flatten()
    if column.null_count or values.null_count:
        raise ValueError("a trace or a value of one is missing")
    lengths = pc.min_max(pc.list_value_length(column)).as_py()
    if lengths["min"] != lengths["max"]:
        raise ValueError(f"its traces have {lengths['min']} to {lengths['max']} frames")
    return values.to_numpy(zero_copy_only=False).reshape(len(column), -1)


def _recording_of(rows: pa.Table, traces: np.ndarray, source: Mapping[str, Any]) -> Recording:
    first = rows.slice(0, 1).to_pylist()[0]
    names = {field.name for field in dataclasses.fields(Recording)} & set(SCHEMA.names)
    fixed = {name: first[name] for name in names - {"accepted", "segment_starts"}}
    labels = json.loads((rows.schema.metadata or {}).get(b"neurt", b'{"labels": []}'))["labels"]
    further = [name for name in rows.column_names if name not in {*SCHEMA.names, *labels}]
    centroids, unit = _centroids_of(rows)
    unit_ids = rows["unit_id"]
    return Recording(
        traces=traces,
        roi_ids=tuple(rows["roi_id"].to_pylist()),
        centroids=centroids,
        coordinate_unit=unit,
        accepted=rows["accepted"].to_numpy().astype(bool),
        unit_ids=None if unit_ids.null_count == len(unit_ids) else unit_ids.fill_null(-1).to_numpy(),
        segment_starts=tuple(first["segment_starts"]),
        labels={name: first[name] for name in labels if first[name] is not None},
        columns={name: _values_of(rows[name]) for name in further if rows[name].null_count < len(rows)},
        source=source,
        **fixed,
    )


def _values_of(column: pa.ChunkedArray) -> np.ndarray | np.ma.MaskedArray:
    """Return a further column as an array (N,), masked where it is null if it is anywhere."""
    unknown = column.is_null().to_numpy()
    if pa.types.is_string(column.type):
        longest = pc.max(pc.utf8_length(column)).as_py()
        if 4 * longest * len(column) > _MOST_TEXT_BYTES:
            raise ValueError(f"it has a text of {longest} characters")
        values = np.array(column.fill_null("").to_pylist(), dtype=np.str_)
    else:
        empty = pa.scalar(False if pa.types.is_boolean(column.type) else 0, column.type)
        values = column.fill_null(empty).to_numpy()
    return np.ma.MaskedArray(values, unknown) if unknown.any() else values


def _centroids_of(rows: pa.Table) -> tuple[np.ndarray | None, str | None]:
    for unit in ("um", "px"):
        x, y = rows[f"x_{unit}"], rows[f"y_{unit}"]
        if x.null_count < len(x) or y.null_count < len(y):
            return np.stack([x.to_numpy(), y.to_numpy()], axis=1).astype(np.float32), unit
    return None, None
