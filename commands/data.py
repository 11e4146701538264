"""Commands that make or look at data: simulate, import."""

import functools
import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import chosen

_in_study = functools.partial(typer.Option, rich_help_panel="Study (simulated)")
_in_recording = functools.partial(typer.Option, rich_help_panel="Recordings (simulated)")
_in_effect = functools.partial(typer.Option, rich_help_panel="Planted effect")


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
    effect_size: Annotated[float, _in_effect(help="Planted neurons fire at 1 + this times their rate.")] = 2.0,
    effect_share: Annotated[float, _in_effect(help="Share of neurons planted in mice of the planted group.")] = 0.5,
) -> None:
    """Simulate mice in two groups, one hyperactive, and write down what was planted in ground_truth.json.

    The label is group: control or planted. Everything is simulated; no animal was recorded.
    """
    flags = locals()
    from ..dataset_scripts.simulate import summarise, write_study
    from ..dataset_scripts.simulation_config import SimulationConfig

    as_in_microns = {"fields": 2, "artifacts": 6} if file_format == "nwb" else {}
    config = chosen(SimulationConfig, as_in_microns | {name: x for name, x in flags.items() if x is not None})

    def show(recordings):
        length = 2 * config.subjects_per_group * config.sessions * config.fields
        with typer.progressbar(recordings, length=length, label="simulated recordings", file=sys.stderr) as bar:
            yield from bar

    print(summarise(write_study(config, output, file_format, progress=show)))
    print(f"saved to {output}")


def import_(
    path: Annotated[Path, typer.Argument(help="A file, or a folder that is searched: suite2p output, .npz or .csv.")],
    output: Annotated[Path, typer.Option(help="The build (a folder): new, or one to add to.")],
    file_format: Annotated[str, typer.Option("--format", help="auto, suite2p, npz or csv.")] = "auto",
    metadata: Annotated[
        Path | None, typer.Option(help="recordings.csv: one row per file; wins over the flags.")
    ] = None,
    sampling_rate: Annotated[float | None, typer.Option(help="Frames per second (Hz), wins over the files.")] = None,
    um_per_pixel: Annotated[float | None, typer.Option(help="Edge of a pixel in µm; without it pixels stay.")] = None,
    subject: Annotated[str | None, typer.Option(help="The animal, if it is one for all files.")] = None,
    positions: Annotated[str | None, typer.Option(help="CSV of positions beside a CSV recording.")] = None,
    trace_kind: Annotated[
        str | None,
        typer.Option(
            help="suite2p: dff or fluorescence, how to make the traces. Arrays: what they are, fluorescence, dff, "
            "denoised, deconvolved or events.",
            show_default="dff for suite2p",
        ),
    ] = None,
    neuropil_coefficient: Annotated[
        float | None, typer.Option(help="Share of the neuropil to subtract; suite2p only.", show_default="0.7")
    ] = None,
    all_rois: Annotated[bool, typer.Option("--all-rois", help="Keep rejected ROIs too; suite2p only.")] = False,
) -> None:
    """Import recordings into a Parquet build, which datasets.load_dataset opens and neurt trains on.

    NaN or infinite frames end the import. With under five placed neurons a recording is kept but gives no windows.
    """
    from ..dataset_scripts.import_recordings import import_recordings

    summary = import_recordings(
        path,
        output,
        format=file_format,
        metadata=metadata,
        sampling_rate=sampling_rate,
        um_per_pixel=um_per_pixel,
        subject=subject,
        positions=positions,
        trace_kind=trace_kind,
        neuropil_coefficient=neuropil_coefficient,
        all_rois=all_rois,
    )
    print(summary)
