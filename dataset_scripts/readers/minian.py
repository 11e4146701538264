"""Read what minian wrote: folders with `C.zarr` and `A.zarr`, and the timestamps of the microscope beside them.

`C` (unit_id, frame) are the denoised traces, `S` the deconvolved ones and `YrA` what `C` leaves over; `A` (unit_id,
height, width) are the footprints. Units are matched by `unit_id`, which has gaps where units were merged or dropped.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..frame_times import holes, irregularity, rate_of, segment_starts
from ..metadata import Facts
from ..recording import Recording
from ..wording import repeated, some
from .csv_columns import header_of, read_columns
from .source import Found, Reader, Source, below, chosen_trace_kind, identity, missing_rate, origin, scaled_centroids
from .zarr_arrays import ZarrArray, is_complete, is_zarr_array, open_zarr, read_zarr, stored_chunks

# Folders named like this say nothing about the session in them.
_NAMELESS = ("minian", "neural_data")
_TRACES = {"denoised": ("C",), "deconvolved": ("S",), "fluorescence": ("C", "YrA")}
_TIMESTAMPS = re.compile(r"(neural_?)?time_?stamps?.*\.csv", re.IGNORECASE)
_FRAME_COLUMNS = ("frame", "frame number", "frame_index")
# In seconds; the first is what version 4 of the Miniscope's software writes.
_TIME_COLUMNS = {
    "time stamp (ms)": 1e-3,
    "timestamp (ms)": 1e-3,
    "timestamp_ms": 1e-3,
    "timestamp (s)": 1.0,
    "timestamp_first": 1.0,
    "unix_time": 1.0,
    "time_s": 1.0,
}
# Seconds; what an indicator shows after as long says little of what it showed before.
_PAUSE = 1.0


def find_minian(root: Path) -> Found:
    """Find folders with `C.zarr` at or below a path; the tables in them and beside their timestamps are claimed."""
    sources, passed_over, claimed = [], [], set()
    for folder in _folders(root):
        if is_zarr_array(folder / "C.zarr" / "C"):
            sources.append(_source(folder, root))
            claimed |= {path for place in {folder, *_timestamps_folder(folder)} for path in place.glob("*.csv")}
        else:
            passed_over.append((f"{below(folder, root)}/C.zarr", "it holds no array C"))
    return Found(sources, passed_over, frozenset(claimed))


def _folders(root: Path) -> Iterator[Path]:
    if root.name == "C.zarr":
        root = root.parent
    for folder, inside, _ in os.walk(root):
        if "C.zarr" in inside:
            yield Path(folder)
        # A store of arrays holds thousands of files, and no session.
        inside[:] = sorted(name for name in inside if not name.startswith(".") and not name.endswith(".zarr"))


def _source(folder: Path, root: Path) -> Source:
    """Name a session after its folders below the root, or after those above where they only say "minian"."""
    root = folder if root.name == "C.zarr" else root
    above, parts = root, list(folder.relative_to(root).parts)
    while above.name and all(part in _NAMELESS for part in parts):
        above, parts = above.parent, [above.name, *parts]
    name = "_".join(part for part in parts if part not in _NAMELESS)
    return Source(folder, below(folder, root), name, name)


def read_minian(source: Source, facts: Facts, *, trace_kind: str | None = None) -> Iterator[Recording]:
    """Read one folder.

    Args:
        source: The folder.
        facts: What is stated about it. A stated sampling rate wins over the timestamps; where these jump by over a
            second a segment starts all the same, and a note says where they go back.
        trace_kind: "denoised" is C, the default, "deconvolved" is S, "fluorescence" is C + YrA.

    Raises:
        ValueError: If an array is missing, damaged or of other units or frames, timestamps go back or are irregular,
            or there is no rate.
    """
    kind = chosen_trace_kind(trace_kind, _TRACES, "minian")
    _check_stores(source, kind)
    units, frames, traces = _read_traces(source, *_TRACES[kind])
    rate, rate_from, starts, backwards = _clock(source, frames, facts.sampling_rate)
    complete = all(is_complete(open_zarr(source.path / f"{name}.zarr" / name)) for name in _TRACES[kind])
    footprints = source.path / "A.zarr"
    pixels = _centroids(footprints, units) if footprints.is_dir() else None
    centroids, unit = scaled_centroids(pixels, "px", facts.um_per_pixel)
    yield Recording(
        traces=traces,
        sampling_rate=rate,
        trace_kind=kind,
        roi_ids=tuple(str(unit_id) for unit_id in units),
        centroids=centroids,
        coordinate_unit=unit,
        segment_starts=starts,
        source=origin(
            source,
            facts,
            "minian",
            trace=" + ".join(_TRACES[kind]),
            rate_from=rate_from,
            read=(units, traces, pixels),
            notes={
                "chunks that are not there were read as the fill value of their array": not complete,
                f"its timestamps go back {backwards}; the stated rate was used": backwards is not None,
                "frames that are left out and jumps of the timestamps begin a new segment": len(starts) > 1,
                "there is no A.zarr, and so there are no positions": pixels is None,
                "units without a footprint in A.zarr have no position": pixels is not None and np.isnan(pixels).any(),
            },
        ),
        **identity(source, facts),
    )


def _check_stores(source: Source, kind: str) -> None:
    there = sorted(path.name for path in source.path.glob("*.zarr") if path.is_dir())
    stores = {kind: [f"{name}.zarr" for name in names] for kind, names in _TRACES.items()}
    missing = [store for store in stores[kind] if store not in there]
    if missing:
        others = " or ".join(other for other, needed in stores.items() if set(needed) <= set(there))
        raise ValueError(
            f"{source.file}: expected {missing[0]} for --trace-kind {kind}, found {some(there)}; choose {others}"
        )


def _read_traces(source: Source, first: str, *others: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return unit ids (N,), frame numbers (T,) and the sum of the named traces (N, T), in the units' order of C."""
    units, frames, traces = _read_variable(source.path, first)
    for name in others:
        other_units, other_frames, more = _read_variable(source.path, name)
        if set(other_units) != set(units) or not np.array_equal(other_frames, frames):
            raise ValueError(f"{source.file}: expected {name} of the units and frames of {first}, got others")
        row = {unit: i for i, unit in enumerate(other_units)}
        traces = traces + more[[row[unit] for unit in units]]
    return units, frames, traces


def _read_variable(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    store = folder / f"{name}.zarr"
    units, frames = _ids(store, "unit_id"), read_zarr(open_zarr(store / "frame"), np.float64)
    array = open_zarr(store / name)
    _check_axes(array, ("unit_id", "frame"), (len(units), frames.size))
    return units, frames.ravel(), read_zarr(array, np.float32)


def _ids(store: Path, name: str) -> np.ndarray:
    array = open_zarr(store / name)
    if array.dtype.kind not in "iu" or len(array.shape) != 1:
        raise ValueError(f"{array.folder}: expected whole numbers, got {array.dtype} of shape {array.shape}")
    ids = read_zarr(array, np.int64)
    if repeated(ids.tolist()):
        again = some([str(unit) for unit in repeated(ids.tolist())])
        raise ValueError(f"{array.folder}: expected each {name} once, got {again} more than once")
    return ids


def _check_axes(array: ZarrArray, axes: tuple[str, ...], sizes: tuple[int, ...]) -> None:
    if array.dimensions not in (None, axes):
        raise ValueError(f"{array.folder}: expected axes {', '.join(axes)}, got {', '.join(array.dimensions)}")
    if len(array.shape) != len(axes) or array.shape[: len(sizes)] != sizes:
        raise ValueError(f"{array.folder}: expected {', '.join(axes)} of {sizes}, got shape {array.shape}")


def _centroids(store: Path, units: np.ndarray) -> np.ndarray:
    """Return positions (x, y) in pixels, (N, 2), weighted by the footprints; NaN where a unit has none.

    They are summed up chunk by chunk: all footprints together are many times larger than the traces.
    """
    footprint_units = _ids(store, "unit_id")
    array = open_zarr(store / "A")
    _check_axes(array, ("unit_id", "height", "width"), (len(footprint_units),))
    sums = np.zeros((len(footprint_units), 3))
    for (rows, height, width), weights in stored_chunks(array):
        if not np.isfinite(weights).all():
            raise ValueError(f"{array.folder}: expected finite footprints, got NaN or infinite weights")
        # Below 0 lies what smoothing overshot.
        weights = np.maximum(weights, 0)
        x, y = np.arange(width.start, width.stop), np.arange(height.start, height.stop)
        across, down = weights.sum(axis=1, dtype=np.float64), weights.sum(axis=2, dtype=np.float64)
        sums[rows] += np.stack([across @ x, down @ y, across.sum(axis=1)], axis=1)
    with np.errstate(invalid="ignore"):
        placed = dict(zip(footprint_units.tolist(), sums[:, :2] / sums[:, 2:], strict=True))
    return np.array([placed.get(unit, (np.nan, np.nan)) for unit in units.tolist()])


def _timestamps_folder(folder: Path) -> list[Path]:
    """Return the folder, it or the one above, where timestamps are; none if there are none."""
    return [place for place in (folder, folder.parent) if _timestamps_in(place)][:1]


def _timestamps_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.csv") if _TIMESTAMPS.fullmatch(path.name))


def _timestamps_file(source: Source) -> Path:
    found = [path for folder in _timestamps_folder(source.path) for path in _timestamps_in(folder)]
    if len(found) > 1:
        raise missing_rate(source.file, f"several files of timestamps ({some([path.name for path in found])})")
    if not found:
        raise missing_rate(source.file, "neither timeStamps.csv nor neural_timestamp.csv beside it or one folder up")
    return found[0]


def _times(path: Path, frames: np.ndarray, file: str) -> np.ndarray:
    """Return the time of each frame in seconds."""
    header = [name.lower() for name in header_of(path)]
    named = [name for name in header if name in _TIME_COLUMNS]
    if not named:
        raise missing_rate(file, f"no column of times that is known in {path.name} ({some(header)!r})")
    clock, counter = header.index(named[0]), [header.index(name) for name in _FRAME_COLUMNS if name in header][:1]
    columns = read_columns(path, header_lines=1, columns=len(header), numbers=[clock, *counter])
    seconds = columns[clock] * _TIME_COLUMNS[named[0]]
    numbers = columns[counter[0]] if counter else np.arange(len(seconds))
    times = dict(zip(numbers.tolist(), seconds.tolist(), strict=True))
    unknown = [frame for frame in frames.tolist() if not np.isfinite(times.get(frame, np.nan))]
    if unknown:
        raise missing_rate(file, f"no time of frame {unknown[0]:g} in {path.name}")
    return np.array([times[frame] for frame in frames.tolist()])


class _Clock(NamedTuple):
    """The sampling rate in Hz, where it is from, where segments start, how far times go back beside a stated rate."""

    rate: float
    rate_from: str
    starts: tuple[int, ...]
    backwards: str | None


def _clock(source: Source, frames: np.ndarray, stated: float | None) -> _Clock:
    """Return when the frames were taken; a segment starts after those that are left out or lost, and after pauses."""
    if len(frames) < 2 or not (np.diff(frames) > 0).all():
        raise ValueError(
            f"{source.file}: expected two or more frames whose numbers increase, got others; save it again"
        )
    left_out = holes(np.diff(frames))
    if stated:
        times = _times_if_any(source, frames)
        if times is None:
            return _Clock(stated, "stated", segment_starts(left_out), None)
        starts = segment_starts(left_out | _pauses(np.diff(times), left_out))
        return _Clock(stated, "stated", starts, _worst_step_back(frames, times))
    timestamps = _timestamps_file(source)
    times = _times(timestamps, frames, source.file)
    rate = _rate(frames, times, left_out, source.file)
    return _Clock(rate, timestamps.name, segment_starts(left_out | holes(np.diff(times))), None)


def _rate(frames: np.ndarray, times: np.ndarray, left_out: np.ndarray, file: str) -> float:
    """Return the sampling rate in Hz."""
    steps = np.diff(times)
    backwards = _worst_step_back(frames, times)
    if backwards:
        usual = float(np.median(steps))
        apart = f" (frames are about 1/{1 / usual:.3g} s apart)" if usual > 0 else ""
        raise missing_rate(file, f"timestamps that go back {backwards}{apart}")
    return rate_of(steps[~left_out], partial(missing_rate, file))


def _pauses(steps: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Return which steps of a clock (T - 1,), in seconds, are pauses, or set it back, by over `_PAUSE`.

    Beside a stated rate, by which frames that were lost alone count as there; none where the steps are irregular all
    over, which tells nothing of pauses.
    """
    if irregularity(steps[~left_out]):
        return np.zeros(len(steps), dtype=bool)
    return (np.abs(steps) > _PAUSE) & (holes(steps) | (steps < 0))


def _times_if_any(source: Source, frames: np.ndarray) -> np.ndarray | None:
    """Return the times of timestamps that are not needed for the rate, if they are there and can be read."""
    with contextlib.suppress(ValueError):
        return _times(_timestamps_file(source), frames, source.file)
    return None


def _worst_step_back(frames: np.ndarray, times: np.ndarray) -> str | None:
    steps = np.diff(times)
    if not (steps < 0).any():
        return None
    worst = int(np.argmin(steps))
    return f"by {-steps[worst]:.3g} s at frame {frames[worst + 1]:g}"


MINIAN = Reader(find_minian, read_minian, frozenset({"trace_kind"}))
