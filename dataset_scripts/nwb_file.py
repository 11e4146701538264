"""Read calcium imaging out of NWB files with h5py: traces and times, never the movies.

References are followed, names are not: a `RoiResponseSeries` leads to its `PlaneSegmentation`, that to its
`ImagingPlane` (schema: https://nwb-schema.readthedocs.io).
"""

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

import h5py
import numpy as np

from .frame_times import holes, irregularity, rate_of, segment_starts
from .hdf5_file import (
    Refused,
    find_array,
    find_numbers,
    member,
    number_attribute,
    read_array,
    read_lines,
    read_text,
    readable,
    text_attribute,
)
from .nwb_tables import integer_column
from .recording import SIMULATED
from .wording import repeated, some


class RoiSeries(NamedTuple):
    """The activity of the N ROIs of one imaging plane over T frames, with nothing of it read yet.

    Args:
        name: The file, in messages.
        path: Where the series stands in the file.
        group: The series.
        data: Its values, (T, N), or (T,) for a single ROI.
        num_frames: T.
        num_rois: N.
        table: The `PlaneSegmentation` that its ROIs belong to.
        rows: The table's rows of these ROIs, int64 of shape (N,).
        roi_ids: The table's `id` of these rows, int64 of shape (N,).
        unit: Unit of the activity as the file gives it.
        conversion: What values are multiplied by ...
        offset: ... and what is added then, to be in that unit.
    """

    name: str
    path: str
    group: h5py.Group
    data: h5py.Dataset
    num_frames: int
    num_rois: int
    table: h5py.Group
    rows: np.ndarray
    roi_ids: np.ndarray
    unit: str | None
    conversion: float
    offset: float


class Clock(NamedTuple):
    """When frames were taken.

    Args:
        sampling_rate: Frames per second (Hz).
        from_: "stated", "timestamps" or "starting_time.rate".
        segment_starts: Frame 0 and the first frame after each hole.
        notes: What is worth knowing, in sentences.
    """

    sampling_rate: float
    from_: str
    segment_starts: tuple[int, ...]
    notes: tuple[str, ...]


def find_series(file: h5py.File, below: str = "/") -> list[str]:
    """Return the path of every `RoiResponseSeries` at or below a group, in natural order.

    Links are not followed: what they lead to stands in its own place, or in another file.
    """
    with readable(f"{file.filename}, {below}"):
        start = member(file, below)
        waiting = [start] if isinstance(start, h5py.Group) else []
        seen, found = set(), []
        while waiting:
            group = waiting.pop()
            if neurodata_type(group) == "RoiResponseSeries":
                found.append(group.name)
            else:
                waiting.extend(_groups_in(group, seen))
    return sorted(found, key=_natural)


def open_series(file: h5py.File, path: str, name: str | os.PathLike) -> RoiSeries:
    """Find what belongs to a series, and check that it fits together.

    Args:
        file: An open NWB file.
        path: The series in it.
        name: The file, in messages.

    Raises:
        ValueError: If there is no such series, it has no segmentation, its counts of frames or ROIs disagree, rows are
            not in the table, or ids repeat.
    """
    where = f"{name}, {path}"
    with readable(where):
        group = member(file, path)
        if not isinstance(group, h5py.Group):
            raise Refused(f"{where}: expected a RoiResponseSeries, found none")
        data = find_numbers(group, "data", where)
        table, rows = _region(group, where)
        shape = _checked_shape(data, len(rows), find_array(group, "timestamps", where), where)
        return RoiSeries(
            name=str(name),
            path=path,
            group=group,
            data=data,
            num_frames=shape[0],
            num_rois=shape[1],
            table=table,
            rows=rows,
            roi_ids=_roi_ids(table, rows, where),
            unit=text_attribute(data, "unit"),
            conversion=number_attribute(data, "conversion", 1.0, where),
            offset=number_attribute(data, "offset", 0.0, where),
        )


def is_of_table(file: h5py.File, path: str, table: h5py.Group) -> bool:
    """Whether the ROIs of a series stand in a table; nothing else of the series is looked at."""
    where = f"{file.filename}, {path}"
    with readable(where):
        group = member(file, path)
        return isinstance(group, h5py.Group) and _referred(group, where) == table


def read_traces(series: RoiSeries, kept: np.ndarray | None = None) -> np.ndarray:
    """Read activity, one block of whole chunks at a time, so that little but the result is in memory.

    Args:
        series: The series.
        kept: Which of its ROIs, as positions in `rows`; all by default.

    Returns:
        float32 of shape (N, T), in `series.unit`.

    Raises:
        ValueError: If the file is damaged, or too small for what its header promises.
    """
    where = f"{series.name}, {series.path}/data"
    kept = np.arange(series.num_rois) if kept is None else np.asarray(kept)
    return read_lines(series.data, kept, 1, where, series.conversion, series.offset)


def read_clock(series: RoiSeries, stated: float | None = None) -> Clock:
    """Read the frame rate and where the recording has holes, from timestamps or the rate beside its start.

    The rate is one over the mean of the regular steps between timestamps, those of half to one and a half medians. A
    longer step is a lost frame or a new trial: a segment begins after it.

    Args:
        series: The series.
        stated: The rate in Hz that wins over what the file says.

    Raises:
        ValueError: If nothing is stated and the timestamps are not finite, do not increase, or more than 5 % of their
            steps are irregular; if they and the rate disagree by more than 1 %; or if the file has neither.
    """
    where = f"{series.name}, {series.path}"
    with readable(where):
        times, rate = _times(series, where), _rate(series, where)
    problem = None if times is None else _problem(times)
    if problem and not stated:
        raise Refused(f"{where}: expected regular timestamps, got {problem}; correct them or state the sampling rate")
    if times is None or problem:
        notes = (f"timestamps are not used: {problem}",) if problem else ()
        starts, inside, from_ = (0,), rate, "starting_time.rate"
    else:
        steps = np.diff(times)
        inside, starts = rate_of(steps, Refused), segment_starts(holes(steps))
        notes = ("holes in the timestamps begin a new segment",) if len(starts) > 1 else ()
        from_ = "timestamps"
        if rate and not stated and not np.isclose(rate, inside, rtol=0.01):
            raise Refused(f"{where}: expected one sampling rate, got {rate:g} Hz beside timestamps of {inside:.6g} Hz")
    if not stated and not inside:
        raise Refused(f"{where}: expected timestamps or a rate in Hz, found neither; state the sampling rate")
    if stated and inside and not np.isclose(stated, inside, rtol=0.01):
        notes += (f"the stated sampling rate was used, not that of {from_}",)
    return Clock(stated or inside, "stated" if stated else from_, starts, notes)


def neurodata_type(found: h5py.Group) -> str | None:
    """Return the NWB type of a group."""
    with readable(found.file.filename):
        return text_attribute(found, "neurodata_type")


def is_simulated(file: h5py.File) -> bool:
    """Whether the simulator wrote a file, see `write_nwb`; others do not say in one place how they were recorded."""
    return (read_text(file, "session_description") or "").startswith(f"{SIMULATED}:")


def _groups_in(group: h5py.Group, seen: set) -> Iterator[h5py.Group]:
    """Yield the groups in a group, each object once, though hard links may lead in circles."""
    for name in group.id:
        # Unlike `h5o.get_info`, this does not measure datasets, which would read the index of every movie.
        info = h5py.h5g.get_objinfo(group.id, name, False)
        if info.type == h5py.h5g.GROUP and info.objno not in seen:
            seen.add(info.objno)
            # A name in no encoding is damage, and h5py would pass it on as bytes.
            yield group[name.decode()]


def _natural(path: str) -> list[str | int]:
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", path))]


def _region(group: h5py.Group, where: str) -> tuple[h5py.Group, np.ndarray]:
    """Return the table that a series' ROIs stand in, and their rows."""
    table = _referred(group, where)
    if table is None:
        raise Refused(f"{where}: expected rois that refer to a PlaneSegmentation, found none; the ROIs are unknown")
    if not isinstance(table, h5py.Group) or not isinstance(table.name, str) or member(table, "id") is None:
        raise Refused(f"{where}: expected rois that refer to a PlaneSegmentation with ids, got {table.name}")
    rows = read_array(group, "rois", where)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise Refused(f"{where}: expected rois as row numbers, got {rows.dtype} of shape {rows.shape}")
    return table, rows.astype(np.int64)


def _referred(group: h5py.Group, where: str) -> h5py.Group | h5py.Dataset | None:
    rois = find_array(group, "rois", where)
    reference = None if rois is None else rois.attrs.get("table")
    return group.file[reference] if isinstance(reference, h5py.Reference) and reference else None


def _checked_shape(data: h5py.Dataset, num_rois: int, times: h5py.Dataset | None, where: str) -> tuple[int, int]:
    if data.ndim not in (1, 2) or 0 in data.shape:
        raise Refused(f"{where}: expected data of shape (frames, ROIs), got shape {data.shape}")
    shape = (*data.shape, 1)[:2]
    frames_by_rois = (None if times is None else times.size, num_rois)
    if _fits(shape, frames_by_rois):
        return shape
    turned = "; it looks transposed: write it again as data.T" if _fits(shape[::-1], frames_by_rois) else ""
    counts = f"{num_rois} rois" + ("" if times is None else f" and {times.size} timestamps")
    raise Refused(f"{where}: expected data of shape (frames, ROIs) for its {counts}, got shape {data.shape}{turned}")


def _fits(shape: tuple[int, int], frames_by_rois: tuple[int | None, int]) -> bool:
    return shape[1] == frames_by_rois[1] and frames_by_rois[0] in (None, shape[0])


def _roi_ids(table: h5py.Group, rows: np.ndarray, where: str) -> np.ndarray:
    ids = integer_column(table, "id")
    outside = rows[(rows < 0) | (rows >= len(ids))]
    if len(outside):
        raise Refused(f"{where}: expected rows of a table of {len(ids)} ROIs, got row {outside[0]}")
    twice = repeated(ids[rows].tolist())
    if twice:
        raise Refused(f"{where}: expected each ROI once, got repeated ids {some([str(each) for each in twice])}")
    return ids[rows]


def _times(series: RoiSeries, where: str) -> np.ndarray | None:
    found = find_array(series.group, "timestamps", where)
    if found is None:
        return None
    unit = text_attribute(found, "unit")
    if unit not in (None, "seconds", "second", "s"):
        raise Refused(f"{where}: expected timestamps in seconds, got {unit!r}")
    find_numbers(series.group, "timestamps", where)
    return np.ravel(read_array(series.group, "timestamps", where)).astype(np.float64)


def _rate(series: RoiSeries, where: str) -> float | None:
    """Return the rate in Hz beside the start; NaN, infinity and what is not above 0 are none."""
    start = find_array(series.group, "starting_time", where)
    rate = None if start is None else start.attrs.get("rate")
    return float(rate) if np.shape(rate) == () and rate is not None and 0 < float(rate) < np.inf else None


def _problem(times: np.ndarray) -> str | None:
    """Return why timestamps give no frame rate, None if they do."""
    if len(times) < 2:
        return f"{len(times)} of them"
    if not np.isfinite(times).all():
        return f"one that is not finite at frame {np.flatnonzero(~np.isfinite(times))[0]}"
    steps = np.diff(times)
    if not (steps > 0).all():
        return f"a step back or none at frame {np.flatnonzero(steps <= 0)[0] + 1}"
    return irregularity(steps)
