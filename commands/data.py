"""Commands that make or look at data: simulate, import, build-microns, inspect."""

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from ..dataset_scripts.readers import READERS
from .options import chosen

_in_study = functools.partial(typer.Option, rich_help_panel="Study (simulated)")
_in_recording = functools.partial(typer.Option, rich_help_panel="Recordings (simulated)")
_in_effect = functools.partial(typer.Option, rich_help_panel="Planted effect")
_in_statement = functools.partial(typer.Option, rich_help_panel="What files do not say")
_in_reading = functools.partial(typer.Option, rich_help_panel="Reading")
_in_preparation = functools.partial(typer.Option, rich_help_panel="Preparation (none by default)")

# The same in import and inspect, so that a line for the one can be pasted behind the other.
_Metadata = Annotated[Path | None, _in_statement(help="recordings.csv: one row per file; wins over the flags.")]
_SamplingRate = Annotated[float | None, _in_statement(help="Frames per second (Hz), wins over the files.")]
_UmPerPixel = Annotated[float | None, _in_statement(help="Edge of a pixel in µm; without it pixels stay.")]
_Subject = Annotated[str | None, _in_statement(help="The animal, if it is one for all files.")]
_Positions = Annotated[str | None, _in_statement(help="CSV of positions beside a CSV recording.")]
_FileFormat = Annotated[str, _in_reading("--format", help=f"auto, {', '.join(READERS)}.")]
_TraceKind = Annotated[
    str | None,
    _in_reading(
        help="fluorescence, dff, denoised, deconvolved or events: which to take or make where there is a choice, what "
        "the traces are where the file cannot say.",
        show_default="dff for suite2p",
    ),
]
_Series = Annotated[str | None, _in_reading(help="Which series of an NWB file, where it holds several.")]
_NeuropilCoefficient = Annotated[
    float | None,
    _in_reading(help="Share of the neuropil to subtract; suite2p and NWB.", show_default="0.7; none of NWB"),
]
_AllRois = Annotated[bool, _in_reading("--all-rois", help="Keep ROIs that a curator rejected, with accepted = false.")]


def _with_bar(number: int) -> Callable[[Iterable], Iterator]:
    """Shows how many of so many simulated recordings are made, as they are asked for."""

    def show(recordings: Iterable) -> Iterator:
        with typer.progressbar(recordings, length=number, label="simulated recordings", file=sys.stderr) as bar:
            yield from bar

    return show


def simulate(
    output: Annotated[Path, typer.Option(help="Folder to make; it must not exist yet.")],
    file_format: Annotated[
        str, typer.Option("--format", help="parquet (a build), npz, or nwb as MICrONS.")
    ] = "parquet",
    seed: Annotated[int, typer.Option(help="The same seed gives the same study.")] = 0,
    subjects_per_group: Annotated[int, _in_study(help="Mice in each of the two groups.")] = 8,
    sessions: Annotated[int, _in_study(help="Imaging sessions of each mouse.")] = 1,
    fields: Annotated[int | None, _in_study(help="Fields of each session.", show_default="1; 2 as nwb")] = None,
    neurons: Annotated[int, _in_study(help="Neurons in each field.")] = 60,
    field_of_view: Annotated[tuple[float, float], _in_study(help="Width and height in µm.")] = (300.0, 240.0),
    artifacts: Annotated[int | None, _in_study(help="Rejected ROIs a field.", show_default="0; 6 as nwb")] = None,
    mouse_spread: Annotated[float, _in_study(help="Spread of rates, noise ... over mice; 0.1 is about 10 %.")] = 0.1,
    duration: Annotated[float, _in_recording(help="Length in seconds.")] = 300.0,
    sampling_rate: Annotated[float, _in_recording(help="Frames per second (Hz).")] = 5.0,
    indicator: Annotated[str, _in_recording(help="GCaMP6s or GCaMP6f.")] = "GCaMP6s",
    noise: Annotated[float, _in_recording(help="Median white noise in dF/F per √Hz.")] = 0.048,
    drift: Annotated[float, _in_recording(help="Standard deviation of slow drift in dF/F.")] = 0.07,
    neuropil: Annotated[float, _in_recording(help="Share of the surroundings' signal that leaks in.")] = 0.2,
    effect: Annotated[
        str,
        _in_effect(
            help="hyperactivity; variability of firing rates over time, their means kept; or synchrony of neighbours, "
            "which no single trace shows (needs --neuropil 0)."
        ),
    ] = "hyperactivity",
    effect_size: Annotated[
        float,
        _in_effect(
            help="1 + this multiplies rates (hyperactivity) or the SD of their logarithm over time (variability), or "
            "divides the variance of the drive that neighbours do not share (synchrony)."
        ),
    ] = 2.0,
    effect_share: Annotated[float, _in_effect(help="Share of neurons planted in mice of the planted group.")] = 0.5,
) -> None:
    """Simulate mice in two groups, plant an effect in one, and write down where in ground_truth.json.

    The label is group: control or planted. Everything is simulated; no animal was recorded.
    """
    flags = locals()
    from ..dataset_scripts.simulate import summarise, write_study
    from ..dataset_scripts.simulation_config import SimulationConfig

    as_in_microns = {"fields": 2, "artifacts": 6} if file_format == "nwb" else {}
    config = chosen(SimulationConfig, as_in_microns | {name: x for name, x in flags.items() if x is not None})

    number = 2 * config.subjects_per_group * config.sessions * config.fields
    print(summarise(write_study(config, output, file_format, progress=_with_bar(number))))
    print(f"saved to {output}")


def simulate_corpus(
    output: Annotated[Path, typer.Option(help="Folder to make; it must not exist yet.")],
    recordings: Annotated[int, typer.Option(help="How many.")] = 3000,
    frames: Annotated[int, typer.Option(help="Frames of each.")] = 512,
    seed: Annotated[int, typer.Option(help="The same seed gives the same corpus.")] = 0,
) -> None:
    """Simulate a corpus to pretrain on: recordings of every kind, no two with the same properties.

    Frame rates from 1.5 to 30 Hz, noise over two decades, slow and fast indicators, drift, neuropil, raw, smoothed,
    denoised and deconvolved traces. `make weights` trains on such a corpus.
    """
    flags = locals()
    from ..dataset_scripts.simulate_corpus import CorpusConfig, write_corpus

    write_corpus(chosen(CorpusConfig, flags), output, progress=_with_bar(recordings))
    print(f"simulated {recordings} recordings of {frames} frames; saved to {output}")


def import_(
    path: Annotated[Path, typer.Argument(help="A file, or a folder that is searched.")],
    output: Annotated[Path, typer.Option(help="The build (a folder): new, or one to add to.")],
    metadata: _Metadata = None,
    labels: Annotated[
        Path | None, _in_statement(help="Table of labels with a column subject or recording; they become classes.")
    ] = None,
    sampling_rate: _SamplingRate = None,
    um_per_pixel: _UmPerPixel = None,
    subject: _Subject = None,
    positions: _Positions = None,
    file_format: _FileFormat = "auto",
    trace_kind: _TraceKind = None,
    series: _Series = None,
    neuropil_coefficient: _NeuropilCoefficient = None,
    all_rois: _AllRois = False,
    nan: Annotated[
        str,
        _in_preparation(
            help="NaN and infinite values: refuse; interpolate, a straight line across gaps up to --max-gap; or drop, "
            "which leaves out neurons with any."
        ),
    ] = "refuse",
    max_gap: Annotated[float | None, _in_preparation(help="Longest gap to interpolate, in seconds.")] = None,
    dff_window: Annotated[
        float | None,
        _in_preparation(help="Make dF/F of fluorescence; F0 is a running percentile over this many seconds."),
    ] = None,
    dff_percentile: Annotated[
        float | None, _in_preparation(help="That percentile, 0 to 100.", show_default="10")
    ] = None,
    resample_to: Annotated[
        float | None,
        _in_preparation(help="New frame rate (Hz), low-pass filtered; of events and deconvolved traces, sums."),
    ] = None,
) -> None:
    """Import recordings into a Parquet build, which datasets.load_dataset opens and neurt trains on.

    NaN or infinite values end the import unless --nan says otherwise. With under five placed neurons a recording is
    kept but gives no windows.
    """
    from ..dataset_scripts.import_recordings import import_recordings
    from ..dataset_scripts.preparation import Preparation

    summary = import_recordings(
        path,
        output,
        metadata=metadata,
        labels=labels,
        sampling_rate=sampling_rate,
        um_per_pixel=um_per_pixel,
        subject=subject,
        positions=positions,
        format=file_format,
        trace_kind=trace_kind,
        series=series,
        neuropil_coefficient=neuropil_coefficient,
        all_rois=all_rois,
        preparation=Preparation(nan, max_gap, dff_window, dff_percentile, resample_to),
    )
    print(summary)


def build_microns(
    source: Annotated[
        str, typer.Argument(help="Folder of NWB files, one file, an http(s) URL of one, or dandi:000402@VERSION.")
    ],
    output: Annotated[Path, typer.Option(help="The build (a folder): new, or one to add to.")],
    scans: Annotated[
        str | None,
        typer.Option(help="Which, as in 4-7,5-6 (session-scan).", show_default="the consortium's selection of 14"),
    ] = None,
    masks: Annotated[str, typer.Option(help="soma, or all: artifacts too, with accepted = false.")] = "soma",
    scan_units: Annotated[
        Path | None, typer.Option(help="ScanUnit table as CSV or Parquet, for unit_id; the pickle is not opened.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Processes; each holds one field, some hundred MB.")] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="Address of a Dask scheduler, as in tcp://host:8786. Its workers need neurt, the same SOURCE and the "
            "same file system around the output."
        ),
    ] = None,
) -> None:
    """Build the MICrONS functional traces (DANDI 000402) from NWB files; movies are never read.

    Fields are kept in a hidden folder beside the output, .NAME.fields, with what was read of remote files, until all
    are there: the same command continues a build that was stopped, and ends with the same bytes.
    """
    from ..dataset_scripts.build_microns import build_microns
    from ..dataset_scripts.microns_files import parse_scans

    print(
        build_microns(
            source,
            output,
            scans=parse_scans(scans),
            masks=masks,
            scan_units=scan_units,
            jobs=jobs,
            scheduler=scheduler,
        )
    )


def inspect(
    path: Annotated[Path, typer.Argument(help="A build, a file, or a folder that is searched.")],
    output: Annotated[Path | None, typer.Option(help="PNG of one recording: traces, positions, noise.")] = None,
    recording: Annotated[
        str | None, typer.Option(help="The recording to draw.", show_default="the first with positions")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="File for every measure and problem.")] = None,
    radius: Annotated[float, typer.Option(help="Neurons closer than this are near.")] = 0.3,
    radius_unit: Annotated[str, typer.Option(help="um, px, or quantile of distances.")] = "quantile",
    metadata: _Metadata = None,
    sampling_rate: _SamplingRate = None,
    um_per_pixel: _UmPerPixel = None,
    subject: _Subject = None,
    positions: _Positions = None,
    file_format: _FileFormat = "auto",
    trace_kind: _TraceKind = None,
    series: _Series = None,
    neuropil_coefficient: _NeuropilCoefficient = None,
    all_rois: _AllRois = False,
) -> None:
    """Say what is wrong with recordings and what to do about it, then what was measured, and draw one of them.

    Nothing is changed. Builds say themselves what the flags under "What files do not say" and "Reading" say of files.
    """
    from ..dataset_scripts.inspect_recordings import inspect_recordings, write_json

    inspection = inspect_recordings(
        path,
        format=file_format,
        metadata=metadata,
        sampling_rate=sampling_rate,
        um_per_pixel=um_per_pixel,
        subject=subject,
        positions=positions,
        trace_kind=trace_kind,
        series=series,
        neuropil_coefficient=neuropil_coefficient,
        all_rois=all_rois,
        radius=radius,
        radius_unit=radius_unit,
        figure=output,
        recording=recording,
    )
    if json is not None:
        write_json(inspection, json)
    print(inspection)
