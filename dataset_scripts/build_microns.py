"""Build the traces of the MICrONS functional release from its public NWB files, one recording per imaging field.

    neurt build-microns dandi:000402@0.240430.2138 --output BUILD --scan-units ScanUnit.csv --jobs 4

Fields are staged in a hidden folder beside the build, `.{name}.fields`, and become the build when all are there. A
build that was killed continues with the fields that it lacks and ends with the same bytes.
"""

import dataclasses
import functools
import itertools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .build_manifest import read_manifest
from .field_runners import run_in_processes, run_on_cluster
from .microns_field import MASKS, SUBJECT, FieldJob, Staged, build_field, field_jobs, staged
from .microns_files import DANDI, DANDISET, SELECTED, ScanFile, find_scans
from .parquet_build import BuildSummary, finish_build
from .recording import SIMULATED
from .scan_units import ScanUnits, read_scan_units
from .wording import count, some

BUILDER = "neurt build-microns"


@dataclasses.dataclass(frozen=True)
class MicronsSummary:
    """What a build did.

    Args:
        folder: The build.
        scans: The scans that it was asked for.
        fields: Number of their fields.
        before: How many of them were there from before.
        build: What was written; None where nothing was to do.
        notes: What is worth knowing.
    """

    folder: Path
    scans: tuple[str, ...]
    fields: int
    before: int
    build: BuildSummary | None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        what = f"{count(self.fields, 'field')} of {count(len(self.scans), 'scan')}"
        if self.build is None:
            return f"nothing to do: {what} are there\nbuild: {self.folder}"
        done = f"built {self.fields - self.before} of {what}, {self.before} there from before: {', '.join(self.scans)}"
        return self.build.report(done, self.notes)


def build_microns(
    source: str | os.PathLike,
    output: str | os.PathLike,
    *,
    scans: Sequence[str] | None = None,
    masks: str = "soma",
    scan_units: str | os.PathLike | None = None,
    jobs: int = 1,
    scheduler: str | None = None,
) -> MicronsSummary:
    """Build the fields of MICrONS scans, or add them to a build.

    Args:
        source: A folder of NWB files, one file, a URL, or `dandi:000402@VERSION`.
        output: The build.
        scans: Which scans, as "4-7"; the consortium's selection by default.
        masks: "soma", or "all" to keep artifacts too, with accepted = false.
        scan_units: CSV or Parquet file of the unit_id of each mask.
        jobs: Processes on this machine.
        scheduler: Address of a Dask scheduler, whose workers see the same files or URLs and the same output folder.

    Returns:
        What was done.

    Raises:
        ValueError: On bad input, naming scan and field. Fields that were built stay for the same command to continue.
    """
    _check_options(masks, jobs, scheduler)
    target = Path(output).resolve()
    staging = target.with_name(f".{target.name}.fields")
    units = read_scan_units(scan_units) if scan_units else None
    files = find_scans(source, scans)
    parameters = _parameters(source, files, masks, units)
    every = [job for file in files for job in field_jobs(file, staging, masks, units)]
    missing = _missing(every, target, parameters)
    to_do = [job for job in missing if staged(job, staging) is None]
    _run(to_do, staging, jobs, scheduler, len(every))
    build = _finish(missing, staging, target, parameters) if missing else None
    # Whoever is killed here leaves a complete build, and the same command removes the folder.
    shutil.rmtree(staging, ignore_errors=True)
    return MicronsSummary(
        target,
        scans=tuple(file.scan for file in files),
        fields=len(every),
        before=len(every) - len(to_do),
        build=build,
        notes=tuple(_notes(build, source, scans, files, units)) if build else (),
    )


def _parameters(
    source: str | os.PathLike, files: Sequence[ScanFile], masks: str, units: ScanUnits | None
) -> dict[str, str]:
    """Return everything that was chosen, for the manifest; no paths or URLs, so that these do not matter."""
    parameters = {"scans": ", ".join(file.scan for file in files), "masks": masks}
    if units is not None:
        parameters["scan_units"] = units.sha256
    if os.fspath(source).startswith(DANDI):
        parameters["dandiset"] = os.fspath(source).removeprefix(DANDI)
    return parameters


def _check_options(masks: str, jobs: int, scheduler: str | None) -> None:
    if masks not in MASKS:
        raise ValueError(f"--masks: expected {' or '.join(MASKS)}, got {masks!r}")
    if jobs < 1:
        raise ValueError(f"--jobs: expected at least 1, got {jobs}")
    if scheduler and jobs > 1:
        raise ValueError("--jobs: expected only without --scheduler, whose workers are as many as they are")


def _missing(jobs: Sequence[FieldJob], target: Path, parameters: Mapping[str, Any]) -> list[FieldJob]:
    """Return the jobs whose fields the build does not hold yet.

    Raises:
        ValueError: If it holds one that was built otherwise or of another file, or is no build.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return list(jobs)
    manifest = read_manifest(target)
    done = {name for step in manifest["steps"] if _same(step, parameters) for name in _fields_of(step)}
    others = {entry["recording_id"] for entry in manifest["files"]} - done
    conflicts = [job.recording_id for job in jobs if job.recording_id in others]
    if conflicts:
        raise ValueError(
            f"{target}: expected a build without these fields or one made with the same flags, got one that holds "
            f"{some(conflicts)} made otherwise; choose another --output"
        )
    _require_same_files(jobs, manifest, target)
    return [job for job in jobs if job.recording_id not in done]


def _require_same_files(jobs: Sequence[FieldJob], manifest: Mapping[str, Any], target: Path) -> None:
    """Raise ValueError where a field in the build came from a file of another name or size."""
    sources = {entry["recording_id"]: entry["source"] for entry in manifest["files"]}
    for job in jobs:
        source = sources.get(job.recording_id, {"file": job.scan.file, "bytes": job.size})
        if (source.get("file"), source.get("bytes")) != (job.scan.file, job.size):
            raise ValueError(
                f"{target}: expected {job.recording_id} of the file that it was built from, {source.get('file')} "
                f"({source.get('bytes')} bytes), got {job.scan.file} ({job.size} bytes); choose another --output"
            )


def _same(step: Mapping[str, Any], parameters: Mapping[str, Any]) -> bool:
    return step["builder"] == BUILDER and {**step["parameters"], "scans": None} == {**parameters, "scans": None}


def _fields_of(step: Mapping[str, Any]) -> list[str]:
    return [*step["recordings"], *(entry.get("recording_id") for entry in step["dropped"])]


def _run(jobs: Sequence[FieldJob], staging: Path, processes: int, scheduler: str | None, total: int) -> None:
    if not jobs:
        return
    build = functools.partial(build_field, staging=staging)
    if scheduler:
        ended = run_on_cluster(build, jobs, scheduler)
    elif processes > 1:
        ended = run_in_processes(build, jobs, processes)
    else:
        ended = map(build, jobs)
    progress = tqdm(ended, "build-microns", total=total, initial=total - len(jobs), unit="field", disable=None)
    for _ in progress:
        pass


def _finish(jobs: Sequence[FieldJob], staging: Path, target: Path, parameters: Mapping[str, Any]) -> BuildSummary:
    fields = [_require_staged(job, staging) for job in jobs]
    entries = [field.entry for field in fields if field.entry]
    dropped = [*_not_somata(entries, parameters["masks"]), *itertools.chain.from_iterable(f.dropped for f in fields)]
    return finish_build(
        staging,
        target,
        entries,
        builder=BUILDER,
        parameters=parameters,
        dropped=dropped,
        origin=_origin(entries, parameters.get("dandiset")),
    )


def _require_staged(job: FieldJob, staging: Path) -> Staged:
    field = staged(job, staging)
    if field is None:
        raise ValueError(
            f"{job.recording_id}: expected its file in {staging}, found none that is whole; workers of a cluster must "
            "see the same folder as this command"
        )
    return field


def _not_somata(entries: Sequence[Mapping[str, Any]], masks: str) -> Iterator[dict[str, Any]]:
    """Say for each scan how many ROIs are no somata, where these were left out."""
    if masks == "all":
        return
    for scan, fields in itertools.groupby(entries, key=lambda entry: entry["session_id"]):
        sources = [field["source"] for field in fields]
        rois, somata = (sum(source[key] for source in sources) for key in ("rois", "accepted_rois"))
        if somata < rois:
            yield {"recording_id": scan, "why": f"{rois - somata} of {rois} ROIs are no somata by their mask_type"}


def _origin(entries: Sequence[Mapping[str, Any]], dandiset: str | None) -> dict[str, Any]:
    """Say in the card what was changed and, if they are those of MICrONS, where the traces come from."""
    origin = {
        "changes": [
            "Raw fluorescence of each ROI, one row per ROI; movies, stimuli and behaviour are not included.",
            "x_um and y_um are centres of masks weighted by their values, pixel index from 0 times grid spacing; the "
            "origin of the field stands in columns of its own.",
            "sampling_rate was computed from the timestamps.",
            "unit_id is unique within a scan only; pt_root_id tells a neuron across scans.",
        ],
        "columns": {
            "mask_type": "soma or artifact",
            "pt_root_id": "the neuron in the electron microscopy volume, the same in every scan",
            "field_x_um": "origin of the field in µm, as in its file",
            "field_y_um": "origin of the field in µm, as in its file",
            "field_z_um": "depth of the field in µm, as in its file",
        },
    }
    if all(entry["subject_id"] == SUBJECT and entry["modality"] != SIMULATED for entry in entries):
        origin |= _release(dandiset)
    return origin


def _release(dandiset: str | None) -> dict[str, Any]:
    version = dandiset.partition("@")[2] if dandiset else None
    where = f"https://doi.org/10.48324/dandi.{DANDISET}/{version}" if version else "in the version that was downloaded"
    return {
        "title": "MICrONS functional traces",
        "licence": "cc-by-4.0",
        "licence_name": "CC BY 4.0",
        "citation": [
            "MICrONS Consortium, Nature 640:435-447 (2025), https://doi.org/10.1038/s41586-025-08790-w",
            f"DANDI Archive, dandiset {DANDISET}, {where}",
        ],
    }


def _notes(
    build: BuildSummary,
    source: str | os.PathLike,
    scans: Sequence[str] | None,
    files: Sequence[ScanFile],
    units: ScanUnits | None,
) -> Iterator[str]:
    absent = [scan for scan in SELECTED if scan not in {file.scan for file in files}]
    if scans is None and absent and Path(source).is_dir():
        yield f"{len(absent)} of the 14 selected scans are not there: {', '.join(absent)}"
    if units is None:
        yield "no unit_id: give the exported ScanUnit table with --scan-units"
    jumps = [entry["recording_id"] for entry in build.files if entry["source"]["notes"]]
    if jumps:
        yield f"holes in the timestamps begin a new segment in {count(len(jumps), 'field')}: {some(jumps)}"
