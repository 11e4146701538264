"""A recording as the rows of one Parquet file, and back."""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..writing_aside import file_aside
from .recording import Recording

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

_ROW_GROUP_BYTES = 4 * 2**20


def write_recording(path: Path, recording: Recording) -> None:
    """Write a recording as one Parquet file, in row groups of a few megabytes."""
    rows = max(1, _ROW_GROUP_BYTES // (4 * recording.num_frames))
    labels = sorted(recording.labels)
    with _writer(path, _with_labels(labels)) as writer:
        for start in range(0, recording.num_neurons, rows):
            writer.write_table(_table(recording, slice(start, start + rows), labels))


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    # A dictionary helps repeated strings only; on traces it costs time and space.
    repeated = [field.name for field in schema if pa.types.is_string(field.type) and field.name != "roi_id"]
    return pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=repeated)


def _with_labels(labels: Iterable[str]) -> pa.Schema:
    return pa.schema([*SCHEMA, *(pa.field(name, pa.string()) for name in sorted(labels))])


def _table(recording: Recording, rows: slice, labels: Sequence[str]) -> pa.Table:
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
    }
    constant = {name: getattr(recording, name, None) for name in SCHEMA.names if name not in columns}
    constant |= {name: recording.labels[name] for name in labels}
    schema = _with_labels(labels)
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


def add_label_columns(path: Path, labels: Iterable[str]) -> None:
    """Give a file these label columns, empty where it has them not; one that has them all stays as it is."""
    schema = _with_labels(labels)
    if pq.read_schema(path).names == schema.names:
        return
    with file_aside(path, replace=True) as aside, pq.ParquetFile(path) as file, _writer(aside, schema) as writer:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            for name in set(schema.names) - set(table.column_names):
                table = table.append_column(name, pa.nulls(table.num_rows, schema.field(name).type))
            writer.write_table(table.select(schema.names))


def read_recording(path: str | os.PathLike, source: Mapping[str, Any] | None = None) -> Recording:
    """Read one file of a build.

    Args:
        path: `data/{split}/{recording_id}.parquet`.
        source: What the manifest says of its origin.

    Raises:
        ValueError: If the file is missing, truncated, or not a recording.
    """
    try:
        with pq.ParquetFile(path) as file:
            traces = _read_traces(file)
            rows = file.read([name for name in file.schema_arrow.names if name != "trace"])
            return _recording_of(rows, traces, source or {})
    except (OSError, pa.ArrowException, KeyError, IndexError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path}: expected a recording of a NEuRT build, got a file that cannot be read ({reason}); build it again"
        ) from error


def _read_traces(file: pq.ParquetFile) -> np.ndarray:
    """Read the traces (N, T) a row group at a time, which keeps the peak near the size of the result."""
    traces, row = None, 0
    for group in range(file.num_row_groups):
        column = file.read_row_group(group, columns=["trace"])["trace"].combine_chunks()
        values = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
        if traces is None:
            traces = np.empty((file.metadata.num_rows, values.shape[1]), dtype=np.float32)
        traces[row : row + len(values)] = values
        row += len(values)
    return traces


def _recording_of(rows: pa.Table, traces: np.ndarray, source: Mapping[str, Any]) -> Recording:
    first = rows.slice(0, 1).to_pylist()[0]
    names = {field.name for field in dataclasses.fields(Recording)} & set(SCHEMA.names)
    fixed = {name: first[name] for name in names - {"accepted", "segment_starts"}}
    labels = {name: first[name] for name in rows.column_names if name not in SCHEMA.names and first[name] is not None}
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
        labels=labels,
        source=source,
        **fixed,
    )


def _centroids_of(rows: pa.Table) -> tuple[np.ndarray | None, str | None]:
    for unit in ("um", "px"):
        x, y = rows[f"x_{unit}"], rows[f"y_{unit}"]
        if x.null_count < len(x) or y.null_count < len(y):
            return np.stack([x.to_numpy(), y.to_numpy()], axis=1).astype(np.float32), unit
    return None, None
