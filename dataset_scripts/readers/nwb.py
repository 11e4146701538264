"""Read NWB files (`.nwb`): one recording per imaging plane, whatever its series is called.

A file may hold several series of the same ROIs (fluorescence, neuropil, dF/F, deconvolved). Which to take is never
guessed. A series of neuropil is known by its name, and is subtracted on request only.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..hdf5_file import open_hdf5, read_text
from ..metadata import Facts
from ..nwb_file import (
    RoiSeries,
    find_series,
    is_of_table,
    is_simulated,
    neurodata_type,
    open_series,
    read_clock,
    read_traces,
)
from ..nwb_tables import column, grid_of, imaging_plane, mask_centroids
from ..recording import SIMULATED, Recording
from ..wording import repeated, some
from .source import (
    TRACE_KINDS_LISTED,
    Found,
    NothingUsable,
    Reader,
    Source,
    check_neuropil_coefficient,
    checked_trace_kind,
    find_files,
    identity,
    origin,
    scaled_centroids,
)

# As suite2p and roiextractors call the curator's choice.
_ACCEPTED = ("iscell", "accepted", "Accepted")
# What was corrected for neuropil may be named after it too.
_NEUROPIL = re.compile(r"neuropil(?!.*(correct|subtract))", re.IGNORECASE)


def find_nwb(root: Path) -> Found:
    """Find the `.nwb` files at or below a path that hold traces of ROIs."""
    return find_files(root, _why_not, ".nwb")


def read_nwb(
    source: Source,
    facts: Facts,
    *,
    trace_kind: str | None = None,
    series: str | None = None,
    neuropil_coefficient: float | None = None,
    all_rois: bool = False,
) -> Iterator[Recording]:
    """Read the imaging planes of an NWB file.

    Args:
        source: The file.
        facts: What is stated about it; wins over what the file says. `um_per_pixel` wins over the grid spacing.
        trace_kind: What the traces are; a series in `DfOverF` says so itself.
        series: Which series to take where a plane has several: a path, or one name in it.
        neuropil_coefficient: c of F - c Fneu, where Fneu is the series of the same ROIs with "neuropil" in its path;
            nothing is subtracted by default, which a note says.
        all_rois: Keep the ROIs that the table says are rejected too; artifacts by its `mask_type` are.

    Yields:
        One recording per plane. With several, their ids end in the name of the series, or of its table.

    Raises:
        ValueError: If the file is damaged, does not hold together, a plane has several series and none is chosen,
            nothing says what the traces are, or there is no one neuropil to subtract.
    """
    check_neuropil_coefficient(neuropil_coefficient or 0)
    empty = []
    with open_hdf5(source.path) as file:
        planes = _one_for_each_plane(_choose(file, series, source), trace_kind, source)
        for plane, suffix in zip(planes, _suffixes(planes), strict=True):
            accepted = _accepted(plane)
            kept = np.arange(plane.num_rois) if all_rois or accepted is None else np.flatnonzero(accepted)
            if len(kept):
                yield _recording(plane, suffix, kept, accepted, source, facts, trace_kind, neuropil_coefficient)
            else:
                empty.append(f"none of the {plane.num_rois} ROIs of {plane.path} is accepted")
    if empty:
        raise NothingUsable("; ".join(empty))


def _why_not(path: Path) -> str | None:
    """Return why a file holds no traces; None for a damaged one too: then reading it says so."""
    try:
        with open_hdf5(path) as file:
            return None if find_series(file) else "it holds no RoiResponseSeries"
    except ValueError:
        return None


def _choose(file: h5py.File, series: str | None, source: Source) -> list[RoiSeries]:
    paths = find_series(file)
    if not paths:
        raise ValueError(f"{source.file}: expected a RoiResponseSeries, found none; the file holds no traces of ROIs")
    chosen = [path for path in paths if series is None or f"/{series.strip('/')}/" in f"{path}/"]
    if not chosen:
        raise ValueError(f"{source.file}: expected --series among {_listed(paths)}, got {series!r}")
    return [open_series(file, path, source.file) for path in chosen]


def _one_for_each_plane(chosen: list[RoiSeries], trace_kind: str | None, source: Source) -> list[RoiSeries]:
    for table in dict.fromkeys(series.table for series in chosen):
        same = [series for series in chosen if series.table == table]
        if len(same) > 1:
            unsaid = trace_kind is None and not all(map(_kind_inside, same))
            kind = f", and say what it holds with --trace-kind {TRACE_KINDS_LISTED}" if unsaid else ""
            raise ValueError(
                f"{source.file}: expected one series of the same ROIs, found {_listed([each.path for each in same])}; "
                f"choose with --series and a name in its path{kind}"
            )
    return chosen


def _kind_inside(series: RoiSeries) -> str | None:
    return "dff" if neurodata_type(series.group.parent) == "DfOverF" else None


def _listed(paths: Sequence[str]) -> str:
    # Names in a file may hold anything, line breaks too.
    return " ".join(some(paths).split())


def _suffixes(planes: Sequence[RoiSeries]) -> list[str]:
    """Return what tells planes apart: nothing for one, else the names of their series, tables, or whole paths."""
    if len(planes) == 1:
        return [""]
    paths = [plane.path for plane in planes]
    tables = [plane.table.name for plane in planes]
    for names in ([path.rsplit("/", 1)[-1] for path in paths], [table.rsplit("/", 1)[-1] for table in tables]):
        if not repeated(names):
            return names
    return [path.strip("/").replace("/", "_") for path in paths]


def _accepted(plane: RoiSeries) -> np.ndarray | None:
    """Return the curator's choice, bool of shape (N,), or None where there is none."""
    for name in _ACCEPTED:
        values = column(plane.table, name)
        if values is not None and values.dtype.kind in "biuf" and values.ndim <= 2 and values.size:
            # suite2p's iscell has a second column, the probability.
            return values.reshape(len(values), -1)[plane.rows, 0] > 0
    # As MICrONS tells masks apart.
    types = column(plane.table, "mask_type")
    if types is None or types.ndim > 1 or "soma" not in types.astype(str):
        return None
    return types[plane.rows].astype(str) != "artifact"


def _recording(
    plane: RoiSeries,
    suffix: str,
    kept: np.ndarray,
    accepted: np.ndarray | None,
    source: Source,
    facts: Facts,
    trace_kind: str | None,
    neuropil_coefficient: float | None,
) -> Recording:
    kind = checked_trace_kind(trace_kind, _kind_inside(plane), source.file)
    clock = read_clock(plane, facts.sampling_rate)
    centroids, unit, notes = _positions(plane, kept, facts.um_per_pixel)
    traces, subtracted, unsubtracted = _less_neuropil(plane, kept, kind, neuropil_coefficient)
    return Recording(
        traces=traces,
        sampling_rate=clock.sampling_rate,
        roi_ids=tuple(str(roi) for roi in plane.roi_ids[kept]),
        centroids=centroids,
        coordinate_unit=unit,
        trace_kind=kind,
        accepted=None if accepted is None else accepted[kept],
        modality=SIMULATED if is_simulated(plane.group.file) else None,
        segment_starts=clock.segment_starts,
        source=origin(
            source,
            facts,
            "nwb",
            series=plane.path,
            rois=plane.num_rois,
            accepted_rois=None if accepted is None else int(accepted.sum()),
            rate_from=clock.from_,
            read=(traces, centroids),
            notes=dict.fromkeys((*clock.notes, *notes, *unsubtracted), True),
            **subtracted,
        ),
        **_identity(plane, suffix, source, facts),
    )


def _less_neuropil(
    plane: RoiSeries, kept: np.ndarray, kind: str, coefficient: float | None
) -> tuple[np.ndarray, dict[str, Any], list[str]]:
    """Return traces (N, T), what was subtracted from them as the manifest says it, and notes."""
    where = f"{plane.name}, {_listed([plane.path])}"
    if coefficient and kind != "fluorescence":
        raise ValueError(
            f"{where}: expected fluorescence to subtract neuropil from, got {kind}; leave --neuropil-coefficient out"
        )
    traces, beside = read_traces(plane, kept), _neuropil_beside(plane)
    if not coefficient:
        unsubtracted = coefficient is None and kind == "fluorescence" and beside
        note = f"{_listed(beside)} was not subtracted; --neuropil-coefficient subtracts a share of it"
        return traces, {}, [note] if unsubtracted else []
    if len(beside) != 1:
        raise ValueError(
            f"{where}: expected one series of the same ROIs with neuropil in its path, found "
            f"{_listed(beside) or 'none'}; leave --neuropil-coefficient out"
        )
    neuropil = open_series(plane.group.file, beside[0], plane.name)
    with np.errstate(invalid="ignore"):  # infinite less infinite
        traces -= np.float32(coefficient) * read_traces(neuropil, _same_rois(plane, neuropil)[kept])
    said = {"trace": "F - c Fneu", "neuropil_coefficient": coefficient, "neuropil_series": neuropil.path}
    return traces, said, []


def _neuropil_beside(plane: RoiSeries) -> list[str]:
    """Return the paths of the neuropil of a plane's ROIs; none for a series that is named after neuropil itself."""
    if "neuropil" in plane.path.lower():
        return []
    file = plane.group.file
    return [path for path in find_series(file) if _NEUROPIL.search(path) and is_of_table(file, path, plane.table)]


def _same_rois(plane: RoiSeries, other: RoiSeries) -> np.ndarray:
    """Return where each ROI of a plane is in another series of the same table."""
    place = {row: i for i, row in enumerate(other.rows.tolist())}
    if other.num_frames != plane.num_frames or not place.keys() >= set(plane.rows.tolist()):
        raise ValueError(
            f"{plane.name}, {_listed([other.path])}: expected the {plane.num_rois} ROIs and {plane.num_frames} frames "
            f"of {_listed([plane.path])}, got {other.num_rois} and {other.num_frames}; leave --neuropil-coefficient "
            "out"
        )
    return np.array([place[row] for row in plane.rows.tolist()])


def _positions(
    plane: RoiSeries, kept: np.ndarray, um_per_pixel: float | None
) -> tuple[np.ndarray | None, str | None, list[str]]:
    pixels = mask_centroids(plane.table, plane.rows[kept])
    if pixels is None:
        return None, None, []
    empty = np.isnan(pixels).any(axis=1).sum()
    notes = [f"{empty} of {len(pixels)} ROIs have a mask of zeros and so no position"] if empty else []
    spacing = None if um_per_pixel else grid_of(plane.table).spacing_um
    if spacing is not None:
        return (*scaled_centroids(pixels * spacing, "um", None), notes)
    return (*scaled_centroids(pixels, "px", um_per_pixel), notes)


def _identity(plane: RoiSeries, suffix: str, source: Source, facts: Facts) -> dict[str, Any]:
    file, imaged = plane.group.file, imaging_plane(plane.table)
    inside = Facts(
        subject=read_text(file, "general/subject/subject_id"),
        session=read_text(file, "general/session_id"),
        indicator=imaged and read_text(imaged, "indicator"),
        brain_area=imaged and read_text(imaged, "location"),
    )
    stated = identity(source, facts.or_else(inside))
    if suffix:
        number = re.search(r"[0-9]{1,9}$", suffix)
        stated["recording_id"] += f"_{suffix}"
        stated["field"] = int(number[0]) if number else stated["field"]
    return stated


NWB = Reader(find_nwb, read_nwb, frozenset({"trace_kind", "series", "neuropil_coefficient", "all_rois"}))
