"""Import recordings of any known format into a Parquet build: find, read, prepare, write, and say what was done."""

import dataclasses
import itertools
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..processing_neurt import MIN_FRAMES, MIN_NEURONS
from .labels import LabelTable, check_all_labelled, read_labels, with_labels
from .metadata import Facts, match_metadata, read_metadata
from .parquet_build import BuildSummary, write_build
from .preparation import Preparation, name_with_file, preparation_notes, prepare, require_above_zero
from .readers import READERS, detect
from .readers.source import Found, NothingUsable, Source, identity
from .recording import Recording
from .wording import count, some, tallied


@dataclasses.dataclass(frozen=True)
class ImportSummary:
    """What an import did.

    Args:
        format: The reader that was used.
        build: What was written.
        notes: What was assumed or is worth knowing.
    """

    format: str
    build: BuildSummary
    notes: tuple[str, ...]

    def __str__(self) -> str:
        subjects = len({entry["subject_id"] for entry in self.build.files})
        what = f"{count(len(self.build.files), 'recording')} ({self.format}) of {count(subjects, 'subject')}"
        return self.build.report(f"imported {what}", self.notes)


def import_recordings(
    path: str | os.PathLike,
    output: str | os.PathLike,
    *,
    format: str = "auto",
    metadata: str | os.PathLike | None = None,
    sampling_rate: float | None = None,
    um_per_pixel: float | None = None,
    subject: str | None = None,
    trace_kind: str | None = None,
    positions: str | None = None,
    neuropil_coefficient: float | None = None,
    all_rois: bool = False,
    series: str | None = None,
    labels: str | os.PathLike | None = None,
    preparation: Preparation | None = None,
) -> ImportSummary:
    """Import the recordings at or below a path into a Parquet build, or add them to it.

    What a row of `metadata` says about a file wins over the flags, and both win over what the file says itself.

    NaN or infinite values end the import with nothing written, unless `preparation` says what to do with them. A
    recording with fewer than five neurons with positions is reported and the import goes on; it stands in the build,
    since own traces need no positions, and is passed over when windows with neighbour channels are made.

    Args:
        path: A file or folder, see the readers for what they know.
        output: The build.
        format: A name in `READERS`, or "auto".
        metadata: A table as `read_metadata` reads it.
        sampling_rate: Frames per second (Hz) of every file without a row that says so.
        um_per_pixel: Edge of a pixel in µm; without it, positions in pixels stay in pixels.
        subject: The animal in every file without a row that says so.
        trace_kind: Which traces to take or make where a file holds several; what they are where it cannot say.
        positions: CSV file of positions beside a CSV table.
        neuropil_coefficient: Share of the neuropil that is subtracted: suite2p's, 0.7 by default, or NWB's, none by
            default.
        all_rois: Keep rejected ROIs too, where the format knows which those are.
        series: Which series of an NWB file to read.
        labels: A table of labels by subject or recording as `read_labels` reads it; they become classes.
        preparation: What to do to the traces before they are written; nothing by default.

    Returns:
        What was written, left out and assumed.

    Raises:
        ValueError: On bad input, naming the file; nothing is written then.
    """
    preparation = preparation or Preparation()
    options = given(
        trace_kind=trace_kind, neuropil_coefficient=neuropil_coefficient, all_rois=all_rois or None, series=series
    )
    flags = Facts(sampling_rate=sampling_rate, um_per_pixel=um_per_pixel, subject=subject, positions=positions)
    table = read_labels(labels) if labels else None
    format, found, facts = find_recordings(path, format, flags, options, metadata, labels)
    dropped = [{"recording_id": file, "why": why} for file, why in found.passed_over]
    split: dict[str, str] = {}
    recordings = _each_id_once(_read_all(format, found.sources, facts, options, split, dropped))
    if table:
        recordings = _labelled(recordings, table, [identity(each, facts[each.file]) for each in found.sources])
    parameters = {"format": format, "sampling_rate": sampling_rate, "um_per_pixel": um_per_pixel, **options}
    build = write_build(
        _usable(recordings, preparation, dropped),
        output,
        split=split,
        builder="neurt import",
        parameters=parameters | preparation.parameters() | ({"labels_of_each": table.key} if table else {}),
        dropped=dropped,
        class_labels=table.class_labels if table else None,
    )
    return ImportSummary(format, build, tuple(_notes(build, facts, all_rois)))


def given(**options: Any) -> dict[str, Any]:
    """Return the options that have a value."""
    return {name: value for name, value in options.items() if value is not None}


def find_recordings(
    path: str | os.PathLike,
    format: str,
    flags: Facts,
    options: Mapping[str, Any],
    metadata: str | os.PathLike | None = None,
    labels: str | os.PathLike | None = None,
) -> tuple[str, Found, dict[str, Facts]]:
    """Find the files at or below a path, and put together what is stated about each.

    Args:
        path: A file or folder.
        format: A name in `READERS`, or "auto".
        flags: What is stated about every file without a row that says so.
        options: For the reader.
        metadata: A table as `read_metadata` reads it.
        labels: A table of labels, which is no recording.

    Returns:
        The reader's name, what it found (files of positions are not among what it passed over), and the facts about
        each file.

    Raises:
        ValueError: If nothing is found, or a flag, option or row does not fit what is.
    """
    require_above_zero(sampling_rate=flags.sampling_rate, um_per_pixel=flags.um_per_pixel)
    format, found = detect(Path(path), format, tables=[table for table in (metadata, labels) if table])
    _check_options(format, options, flags, found.sources)
    files = [source.file for source in found.sources]
    rows = match_metadata(read_metadata(metadata), files) if metadata else {}
    facts = {file: rows.get(file, Facts()).or_else(flags) for file in files}
    positions_files = {fact.positions for fact in facts.values()}
    passed_over = [(file, why) for file, why in found.passed_over if file not in positions_files]
    return format, found._replace(passed_over=passed_over), facts


def _check_options(format: str, options: Mapping[str, Any], flags: Facts, sources: list[Source]) -> None:
    for name in options:
        if name not in READERS[format].options:
            raise ValueError(f"--{name.replace('_', '-')}: expected only with files that know it, got {format} files")
    if flags.positions and (format != "csv" or len(sources) > 1):
        raise ValueError(
            f"--positions: expected one CSV recording, got {len(sources)} of {format}; "
            "use a column positions in --metadata"
        )


def _read_all(
    format: str,
    sources: list[Source],
    facts: Mapping[str, Facts],
    options: Mapping[str, Any],
    split: dict[str, str],
    dropped: list[dict[str, Any]],
) -> Iterator[Recording]:
    for source in tqdm(sources, desc="import", unit="file", disable=None):
        try:
            for recording in READERS[format].read(source, facts[source.file], **options):
                split[recording.recording_id] = facts[source.file].split or "train"
                yield recording
        except NothingUsable as nothing:
            dropped.append({"recording_id": facts[source.file].recording or source.recording, "why": str(nothing)})


def _each_id_once(recordings: Iterable[Recording]) -> Iterator[Recording]:
    files: dict[str, str] = {}
    for recording in recordings:
        # Ids name files, and some file systems take upper and lower case for the same.
        name, file = recording.recording_id.casefold(), recording.source["file"]
        if name in files:
            raise ValueError(
                f"recording {recording.recording_id!r}: expected an id of its own for each recording, got it from "
                f"{files[name]} and from {file}; name them in a column recording of --metadata"
            )
        files[name] = file
        yield recording


def _labelled(
    recordings: Iterable[Recording], table: LabelTable, expected: list[Mapping[str, Any]]
) -> Iterator[Recording]:
    """Yield recordings with their labels; raises ValueError after the last one if any had none, or a row no one."""
    keys = []
    for recording in recordings:
        keys.append(table.key_of(recording))
        yield with_labels(recording, table)
    # A row for a file of which no neuron could be used is no mistake.
    check_all_labelled(table, keys, [each[f"{table.key}_id"] for each in expected])


def _usable(
    recordings: Iterable[Recording], preparation: Preparation, dropped: list[dict[str, Any]]
) -> Iterator[Recording]:
    """Yield recordings prepared and without constant traces; what is left out is appended to `dropped`."""
    for recording in recordings:
        if recording.num_frames < MIN_FRAMES:
            raise ValueError(
                f"{name_with_file(recording)}: expected at least {MIN_FRAMES} frames, got "
                f"{recording.num_frames}; leave it out (or, if one row is one neuron, transpose it)"
            )
        constant = _constant(recording.traces)
        if constant.any():
            names = list(itertools.compress(recording.roi_ids, constant))
            why = f"{len(names)} of {recording.num_neurons} neurons have a constant trace: roi {some(names)}"
            dropped.append({"recording_id": recording.recording_id, "roi_ids": names, "why": why})
        if constant.all():
            continue
        try:
            prepared, left_out = prepare(recording.only(~constant) if constant.any() else recording, preparation)
        except NothingUsable as nothing:
            dropped.append({"recording_id": recording.recording_id, "why": str(nothing)})
            continue
        dropped += left_out
        yield prepared


def _constant(traces: np.ndarray) -> np.ndarray:
    """Return which traces (N, T) are the same wherever they are a number."""
    return np.fmin.reduce(traces, axis=1) == np.fmax.reduce(traces, axis=1)


def _notes(build: BuildSummary, facts: Mapping[str, Facts], all_rois: bool) -> Iterator[str]:
    files = build.files
    sources = [entry["source"] for entry in files]
    yield from tallied((note for source in sources for note in source["notes"]), len(files))
    curated = [source for source in sources if source.get("accepted_rois") is not None]
    if curated:
        accepted, rois = (sum(source[key] for source in curated) for key in ("accepted_rois", "rois"))
        others = "" if accepted == rois else f"; the others are {'kept as rejected' if all_rois else 'left out'}"
        yield f"{accepted} of {rois} ROIs are accepted by their curator{others}"
    floored = [f"{e['recording_id']} roi {roi}" for e in files for roi in e["source"].get("floored_rois", ())]
    if floored:
        yield (
            "f0 is a tenth of the median fluorescence, since the 10th percentile less neuropil is below it, in "
            f"{count(len(floored), 'neuron')}: {some(floored)}"
        )
    yield from preparation_notes(files)
    yield from _same_data(files, build.held)
    unstated = [e for e in files if facts[e["source"]["file"]].subject is None and e["subject_id"] == e["session_id"]]
    if unstated:
        yield f"no subject is stated for {count(len(unstated), 'recording')}: each session counts as its own subject"
    yield from _position_notes(files)
    for subject in sorted({entry["subject_id"] for entry in files}):
        splits = sorted({entry["split"] for entry in files if entry["subject_id"] == subject})
        if len(splits) > 1:
            yield f"subject {subject} stands in {' and '.join(splits)}: no score across them is one on a new animal"


def _same_data(files: Iterable[Mapping[str, Any]], held: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Name the new recordings that hold what others do, as a file does that was copied under another name."""
    named = defaultdict(list)
    for entry in held:
        named[entry["source"].get("sha256")].append(entry["recording_id"])
    for digest in dict.fromkeys(entry["source"]["sha256"] for entry in files):
        if len(named[digest]) > 1:
            yield (
                f"the same data stand in {count(len(named[digest]), 'recording')}: {some(named[digest])}; leave all "
                "but one out, or animals count twice"
            )


def _position_notes(files: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    pixels = sum(entry["coordinate_unit"] == "px" for entry in files)
    if pixels:
        yield f"positions are in pixels in {count(pixels, 'recording')}; --um-per-pixel turns them into µm"
    nowhere = [entry["recording_id"] for entry in files if not entry["neurons_with_positions"]]
    if nowhere:
        yield f"no positions and so no neighbour channels in {count(len(nowhere), 'recording')}: {some(nowhere)}"
    few = [e["recording_id"] for e in files if e["neurons_with_positions"] and not e["neighbour_channels"]]
    if few:
        yield (
            f"fewer than {MIN_NEURONS} accepted neurons with positions in {count(len(few), 'recording')}, kept "
            f"in the build and passed over when windows with neighbour channels are made: {some(few)}"
        )
