"""Look at recordings before anything is made of them: what is wrong, what was measured, and one picture."""

import dataclasses
import functools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..processing_neurt import MIN_NEURONS, NeurtProcessor
from ..writing_aside import file_aside
from .build_manifest import MANIFEST, read_manifest
from .import_recordings import find_recordings, given
from .inspect_figure import recording_figure, save_figure
from .inspect_table import measures_table
from .metadata import Facts
from .parquet_rows import read_recording
from .quality import Quality, measure
from .quality_problems import Problem, group_problems, group_unreadable, problems_of
from .readers import READERS
from .recording import Recording
from .wording import count, printable, some, tallied

_Read = Callable[[], Iterable[Recording]]


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What was seen.

    Args:
        format: The reader, or "build".
        qualities: The measures of each recording that could be read.
        unreadable: Why, for each file or recording of a build that could not be read, or not to its end.
        problems: What is wrong with the recordings that were read, the worst first.
        notes: What readers noted or left.
        parts: How many files or recordings of a build there are, those that cannot be read among them.
        drawn: The recording_id in the figure and the figure's path; None without a figure.
    """

    format: str
    qualities: tuple[Quality, ...]
    unreadable: Mapping[str, str]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    parts: int
    drawn: tuple[str, str] | None

    def __str__(self) -> str:
        simulated = sum(quality.simulated for quality in self.qualities)
        origin = f", {simulated} of them simulated" if simulated else ""
        problems = group_unreadable(self.unreadable) + group_problems(self.problems, len(self.qualities))
        lines = [
            f"inspected {count(len(self.qualities), 'recording')} ({self.format}{origin})",
            *([f"problem: {line}" for line in problems] or ["no problem found"]),
            *(f"note: {note}" for note in self.notes),
            "",
            *measures_table(self.qualities),
            *([f"drawn: {', '.join(self.drawn)}"] if self.drawn else []),
            *self._last_words(),
        ]
        return "\n".join(map(printable, lines))

    def _last_words(self) -> list[str]:
        # The last line, since the problem that says why has left the screen in a long report.
        part = "recording" if self.format == "build" else "file"
        lost = f"{len(self.unreadable)} of {count(self.parts, part)} could not be read, see the problems above"
        return [lost] if self.unreadable else []

    def as_json(self) -> dict[str, Any]:
        """Every measure and problem as plain values, None where something could not be measured."""
        return {
            "format": self.format,
            "unreadable": dict(self.unreadable),
            "problems": [problem._asdict() for problem in self.problems],
            "notes": list(self.notes),
            "recordings": [_plain(dataclasses.asdict(quality)) for quality in self.qualities],
        }


def inspect_recordings(
    path: str | os.PathLike,
    *,
    format: str = "auto",
    metadata: str | os.PathLike | None = None,
    sampling_rate: float | None = None,
    um_per_pixel: float | None = None,
    subject: str | None = None,
    positions: str | None = None,
    trace_kind: str | None = None,
    series: str | None = None,
    neuropil_coefficient: float | None = None,
    all_rois: bool = False,
    radius: float = 0.3,
    radius_unit: str = "quantile",
    figure: str | os.PathLike | None = None,
    recording: str | None = None,
) -> Inspection:
    """Measure every recording of a build or of the files at or below a path, one in memory at a time.

    A recording that cannot be read is a problem among the others.

    Args:
        path: A build, a file, or a folder of files.
        format: A name in `READERS`, or "auto".
        metadata: A table as `read_metadata` reads it.
        sampling_rate: Frames per second (Hz) of every file without a row that says so.
        um_per_pixel: Edge of a pixel in µm.
        subject: The animal in every file without a row that says so.
        positions: CSV file of positions beside a CSV table.
        trace_kind: What the traces are or which to take, as for an import.
        series: Which series to take, as for an import.
        neuropil_coefficient: Share of the neuropil that is subtracted, as for an import.
        all_rois: Read rejected ROIs too, as for an import; they are counted and not measured.
        radius: Neurons closer than this are near; see the processor.
        radius_unit: "um", "px" or "quantile".
        figure: Where to write a picture of one recording (PNG).
        recording: The recording_id to draw; by default the first with positions for neighbour channels, or the first.

    Raises:
        ValueError: On bad options, or if there is nothing that can be read.
    """
    NeurtProcessor(neighbour_radius=radius, radius_unit=radius_unit)  # refuses a radius that training would refuse
    if recording is not None and figure is None:
        raise ValueError(f"--recording: expected with --output, the picture of {recording!r}, got no --output")
    flags = given(sampling_rate=sampling_rate, um_per_pixel=um_per_pixel, subject=subject, positions=positions)
    options = given(
        trace_kind=trace_kind, series=series, neuropil_coefficient=neuropil_coefficient, all_rois=all_rois or None
    )
    if (Path(path) / MANIFEST).is_file():
        stated_format = None if format == "auto" else format
        _refuse_beside_build(given(format=stated_format, metadata=metadata, **flags, **options))
        format, parts, notes = "build", _parts_of_build(Path(path)), []
    else:
        format, found, facts = find_recordings(path, format, Facts(**flags), options, metadata)
        read = functools.partial(READERS[format].read, **options)
        parts = {one.file: functools.partial(read, one, facts[one.file]) for one in found.sources}
        notes = [f"left {file}: {why}" for file, why in found.passed_over]
    measured, unreadable = _measure_all(parts, radius, radius_unit)
    qualities = tuple(quality for _, quality in measured)
    notes = [*tallied((note for quality in qualities for note in quality.notes), len(qualities)), *notes]
    drawn = None
    if figure is not None:
        read, quality = _chosen(measured, recording)
        save_figure(recording_figure(_read_again(read, quality), quality), figure)
        drawn = quality.recording_id, os.fspath(figure)
    return Inspection(
        format=format,
        qualities=qualities,
        unreadable=unreadable,
        problems=tuple(problems_of(qualities)),
        notes=tuple(notes),
        parts=len(parts),
        drawn=drawn,
    )


def write_json(inspection: Inspection, path: str | os.PathLike) -> None:
    """Write `Inspection.as_json` to a file, in the place of one that is there."""
    with file_aside(path, replace=True) as aside:
        aside.write_text(json.dumps(inspection.as_json(), indent=1, allow_nan=False) + "\n")


def _refuse_beside_build(flags: Mapping[str, Any]) -> None:
    for name in flags:
        raise ValueError(
            f"--{name.replace('_', '-')}: expected only with files that are still to be imported, got a build, which "
            "says it itself; leave the flag out"
        )


def _parts_of_build(folder: Path) -> dict[str, _Read]:
    files = read_manifest(folder)["files"]
    return {one["recording_id"]: functools.partial(_read_entry, folder / one["path"], one["source"]) for one in files}


def _read_entry(path: Path, source: Mapping[str, Any]) -> Iterator[Recording]:
    yield read_recording(path, source)


def _measure_all(
    parts: Mapping[str, _Read], radius: float, radius_unit: str
) -> tuple[list[tuple[_Read, Quality]], dict[str, str]]:
    """Measure every recording that can be read, and say of each file or recording that cannot be why."""
    measured, unreadable = [], {}
    for name, read in tqdm(parts.items(), desc="inspect", unit="file", disable=None):
        try:
            for recording in read():
                measured.append((read, measure(recording, radius, radius_unit)))
        except (ValueError, OSError) as error:
            unreadable[name] = str(error).removeprefix(f"{name}: ")
    if not measured:
        lines = group_unreadable(unreadable) or ["expected at least one recording to inspect, got none"]
        raise ValueError(lines[0])
    return measured, unreadable


def _chosen(measured: Sequence[tuple[_Read, Quality]], recording: str | None) -> tuple[_Read, Quality]:
    """Return what to draw: the one asked for, else the first with positions for neighbour channels, else the first."""
    if recording is None:
        return next((one for one in measured if one[1].positioned >= MIN_NEURONS), measured[0])
    for read, quality in measured:
        if quality.recording_id == recording:
            return read, quality
    known = some([quality.recording_id for _, quality in measured])
    raise ValueError(f"--recording: expected one of {known}, got {recording!r}")


def _read_again(read: _Read, quality: Quality) -> Recording:
    # Not kept since it was measured: then two recordings would be in memory while the others are read.
    again = next(one for one in read() if one.recording_id == quality.recording_id)
    return again.accepted_neurons()


def _plain(value: Any) -> Any:
    """Return measures as JSON knows them; NaN, which it does not, becomes None."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
