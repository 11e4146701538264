"""One imaging field of the MICrONS release: read from its NWB file and staged, whole or not at all.

A field is one job: a plain value that any process can take, which opens its own file. What it makes depends on nothing
else, so fields can be built in any order, by any number of processes, before and after a build was killed.

    STAGING/data/train/4-7_field3.parquet   the recording, as it will stand in the build
    STAGING/fields/4-7_field3.json          its manifest entry, what was left out, and a digest of the job
    STAGING/pieces/                         what was read of remote files
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from ..writing_aside import file_aside
from .hdf5_file import read_text
from .microns_files import ScanFile, fingerprint, open_scan, scan_inside, session_and_scan
from .nwb_file import RoiSeries, find_series, is_simulated, open_series, read_clock, read_traces
from .nwb_tables import column, grid_of, imaging_plane, integer_column, mask_centroids
from .parquet_build import sha256_of, write_file
from .readers.source import digest
from .recording import SIMULATED, Recording
from .scan_units import ScanUnits
from .wording import some

MASKS = ("soma", "all")
_FLUORESCENCE = "/processing/ophys/Fluorescence"
SUBJECT = "17797"


@dataclasses.dataclass(frozen=True)
class FieldJob:
    """One field to build.

    Args:
        scan: The file that it is in.
        field: Its number.
        series: Where its `RoiResponseSeries` stands in the file.
        masks: "soma", or "all" to keep artifacts too, with accepted = false.
        units: The unit_id of each mask_id that has one; None without a ScanUnit table.
        size: That of the file in bytes, which is the same on disk and at a URL.
        fingerprint: What changes when the file does.
    """

    scan: ScanFile
    field: int
    series: str
    masks: str
    units: Mapping[int, int] | None
    size: int
    fingerprint: tuple[int, ...]

    @property
    def recording_id(self) -> str:
        return f"{self.scan.scan}_field{self.field}"

    def digest(self) -> str:
        """Return what tells the job from every other, but not where remote files were found."""
        units = self.units and sorted(self.units.items())
        file = (self.scan.scan, self.scan.file, self.size, self.fingerprint)
        what = (self.field, self.series, self.masks, units)
        version = importlib.metadata.version("neurt")
        return hashlib.sha256(json.dumps([version, file, what]).encode()).hexdigest()


class Staged(NamedTuple):
    """What building a field gave.

    Args:
        entry: For the manifest; None where no ROI could be kept.
        dropped: What was left out of the field and why, for the manifest.
    """

    entry: dict[str, Any] | None
    dropped: list[dict[str, Any]]


def field_jobs(scan: ScanFile, staging: Path, masks: str, units: ScanUnits | None) -> list[FieldJob]:
    """Return a job for each field of a scan.

    Args:
        scan: The file.
        staging: Where pieces of remote files are kept.
        masks: See `FieldJob`.
        units: The ScanUnit table, if there is one.

    Raises:
        ValueError: If the file cannot be opened, is that of another scan, or has no fields.
    """
    session, number = session_and_scan(scan.scan)
    with open_scan(scan, _pieces(staging)) as file:
        inside, size = scan_inside(file), file.id.get_filesize()
        if inside not in (None, scan.scan):
            raise ValueError(f"{scan.file}: expected scan {scan.scan} as in its name, got {inside} inside; rename it")
        found = [(path, re.search(r"\d{1,4}$", path)) for path in find_series(file, _FLUORESCENCE)]
    fields = {int(match[0]): path for path, match in found if match}
    if not fields or len(fields) != len(found):
        names = some([path.rsplit("/", 1)[-1] for path, _ in found]) or "none"
        raise ValueError(
            f"{scan.file}: expected RoiResponseSeries1, 2 ... in {_FLUORESCENCE}, one for each field, got {names}; "
            "`neurt import` reads NWB files in general"
        )
    marks = fingerprint(scan)
    return [
        FieldJob(scan, field, path, masks, None if units is None else units.of(session, number, field), size, marks)
        for field, path in sorted(fields.items())
    ]


def build_field(job: FieldJob, staging: Path) -> None:
    """Read one field and write it to the staging folder; a pure function of the job.

    Raises:
        ValueError: If the field cannot be read; field and file are named.
        OSError: If it cannot be written.
    """
    try:
        recording, dropped = read_field(job, staging)
    except ValueError as error:
        raise ValueError(f"{job.recording_id}: {error}") from error
    entry = recording and write_file(recording, staging)
    told = {"job": job.digest(), "entry": entry, "dropped": dropped}
    with file_aside(_told(job, staging), replace=True) as aside:
        aside.write_text(json.dumps(told), encoding="utf-8")


def staged(job: FieldJob, staging: Path) -> Staged | None:
    """Return what building a field gave; None where it is not there, was another job or does not agree."""
    try:
        told = json.loads(_told(job, staging).read_text(encoding="utf-8"))
        if told["job"] != job.digest():
            return None
        entry = told["entry"]
        if entry is not None and sha256_of(staging / entry["path"]) != entry["sha256"]:
            return None
        return Staged(entry, told["dropped"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def read_field(job: FieldJob, staging: Path) -> tuple[Recording | None, list[dict[str, Any]]]:
    """Read one field.

    Returns:
        The recording, None if no ROI could be kept; and what was left out and why.

    Raises:
        ValueError: If the file does not hold what a MICrONS field must, or is damaged.
    """
    with open_scan(job.scan, _pieces(staging)) as file:
        series = open_series(file, job.series, job.scan.file)
        is_soma = _is_soma(series, job.masks)
        kept = np.flatnonzero(is_soma) if job.masks == "soma" else np.arange(series.num_rois)
        centroids = _centroids(series, kept)
        placed = np.isfinite(centroids).all(axis=1)
        dropped = _left_out(job, series, kept[~placed], "a mask of zeros")
        kept, centroids = kept[placed], centroids[placed]
        traces = read_traces(series, kept)
        # They are finite where all frames are, and comparing them takes no array of the size of the traces.
        lowest, highest = traces.min(axis=1), traces.max(axis=1)
        usable = np.isfinite(lowest) & np.isfinite(highest) & (lowest < highest)
        dropped += _left_out(job, series, kept[~usable], "a trace with NaN or infinite frames, or a constant one")
        if not usable.any():
            why = f"none of its {series.num_rois} ROIs is a soma with a mask and an activity"
            return None, [*dropped, {"recording_id": job.recording_id, "why": why}]
        if not usable.all():
            kept, centroids, traces = kept[usable], centroids[usable], traces[usable]
        return _recording(job, file, series, kept, is_soma, centroids, traces), dropped


def _is_soma(series: RoiSeries, masks: str) -> np.ndarray:
    types = column(series.table, "mask_type")
    if types is None:
        if masks == "soma":
            raise ValueError(
                f"{series.name}, {series.path}: expected a column mask_type beside its masks, found none; "
                "--masks all takes every ROI"
            )
        return np.ones(series.num_rois, dtype=bool)
    return types[series.rows] == "soma"


def _centroids(series: RoiSeries, kept: np.ndarray) -> np.ndarray:
    """Return (x, y) in µm from the field's first pixel, (N, 2); NaN for a mask of zeros."""
    centroids, grid = mask_centroids(series.table, series.rows[kept]), grid_of(series.table)
    if centroids is None or grid.spacing_um is None:
        lacking = "image_mask" if centroids is None else "grid_spacing"
        raise ValueError(f"{series.name}, {series.path}: expected {lacking} for positions in µm, found none")
    return centroids * grid.spacing_um


def _left_out(job: FieldJob, series: RoiSeries, rois: np.ndarray, what: str) -> list[dict[str, Any]]:
    if not len(rois):
        return []
    names = [str(roi) for roi in series.roi_ids[rois]]
    why = f"{len(names)} of {series.num_rois} ROIs have {what}: mask_id {some(names)}"
    return [{"recording_id": job.recording_id, "roi_ids": names, "why": why}]


def _recording(
    job: FieldJob,
    file: h5py.File,
    series: RoiSeries,
    kept: np.ndarray,
    is_soma: np.ndarray,
    centroids: np.ndarray,
    traces: np.ndarray,
) -> Recording:
    clock, plane, ids = read_clock(series), imaging_plane(series.table), series.roi_ids[kept]
    centroids = centroids.astype(np.float32)
    return Recording(
        traces=traces,
        sampling_rate=clock.sampling_rate,
        recording_id=job.recording_id,
        subject_id=read_text(file, "general/subject/subject_id") or SUBJECT,
        session_id=job.scan.scan,
        roi_ids=tuple(map(str, ids)),
        centroids=centroids,
        coordinate_unit="um",
        trace_kind="fluorescence",
        accepted=is_soma[kept],
        unit_ids=None if job.units is None else np.array([job.units.get(int(roi), -1) for roi in ids]),
        field=job.field,
        modality=SIMULATED if is_simulated(file) else "two-photon",
        brain_area=read_text(plane, "location"),
        indicator=read_text(plane, "indicator"),
        segment_starts=clock.segment_starts,
        columns=_columns(series, kept),
        source={
            "file": job.scan.file,
            "bytes": job.size,
            "format": "microns",
            "series": job.series,
            "sampling_rate_from": clock.from_,
            "um_per_pixel": grid_of(series.table).spacing_um.tolist(),
            "rois": series.num_rois,
            "accepted_rois": int(is_soma.sum()),
            "sha256": digest(traces, centroids),
            "notes": list(clock.notes),
        },
    )


def _columns(series: RoiSeries, kept: np.ndarray) -> dict[str, np.ndarray]:
    """Return mask type, root id of the electron microscopy volume and origin of the field for each ROI."""
    table, rows = series.table, series.rows[kept]
    columns: dict[str, np.ndarray] = {}
    types, root_ids, origin = column(table, "mask_type"), integer_column(table, "pt_root_id"), grid_of(table).origin_um
    if types is not None:
        columns["mask_type"] = types[rows].astype(str)
    if root_ids is not None:
        columns["pt_root_id"] = np.ma.masked_equal(root_ids[rows], 0)
    if origin is not None:
        for axis, value in zip("xyz", origin, strict=True):
            columns[f"field_{axis}_um"] = np.ma.masked_invalid(np.full(len(rows), value, dtype=np.float32))
    return columns


def _pieces(staging: Path) -> Path:
    return staging / "pieces"


def _told(job: FieldJob, staging: Path) -> Path:
    return staging / "fields" / f"{job.recording_id}.json"
