"""The `neurt` command: one sub-command per job, each a thin call into the package."""

import functools
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="NEuRT: a transformer for neuronal activity recorded with calcium imaging.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of the original NEuRT (.pth), of either kind.")],
    config: Annotated[Path, typer.Option(help="The model_cfg.json that it was trained with.")],
    output: Annotated[Path, typer.Option(help="Folder to make; it must not exist yet.")],
) -> None:
    """Convert a checkpoint of the original NEuRT into a folder that from_pretrained opens."""
    from .convert_checkpoint import convert_checkpoint

    conversion = convert_checkpoint(checkpoint, config, output)
    print(conversion.summary())
    print(f"saved to {output}")


_in_study = functools.partial(typer.Option, rich_help_panel="Study (simulated)")
_in_recording = functools.partial(typer.Option, rich_help_panel="Recordings (simulated)")
_in_effect = functools.partial(typer.Option, rich_help_panel="Planted effect")


@app.command()
def simulate(
    output: Annotated[Path, typer.Option(help="Folder to make; it must not exist yet.")],
    file_format: Annotated[str, typer.Option("--format", help="parquet (a build), or nwb as MICrONS.")] = "parquet",
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
    from .dataset_scripts.simulate import summarise, write_study
    from .dataset_scripts.simulation_config import SimulationConfig

    is_nwb = file_format == "nwb"
    config = SimulationConfig(
        seed=seed,
        subjects_per_group=subjects_per_group,
        sessions=sessions,
        fields=fields if fields is not None else 2 if is_nwb else 1,
        neurons=neurons,
        field_of_view=field_of_view,
        artifacts=artifacts if artifacts is not None else 6 if is_nwb else 0,
        mouse_spread=mouse_spread,
        duration=duration,
        sampling_rate=sampling_rate,
        indicator=indicator,
        noise=noise,
        drift=drift,
        neuropil=neuropil,
        effect_size=effect_size,
        effect_share=effect_share,
    )

    def show(recordings):
        length = 2 * subjects_per_group * sessions * config.fields
        with typer.progressbar(recordings, length=length, label="simulated recordings", file=sys.stderr) as bar:
            yield from bar

    print(summarise(write_study(config, output, file_format, progress=show)))
    print(f"saved to {output}")


@app.command("import")
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
    """Import recordings into a Parquet build, which datasets.load_dataset opens and neurt trains on."""
    from .dataset_scripts.import_recordings import import_recordings

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


def main() -> None:
    """Run the command line; bad input ends with one plain line and exit code 2."""
    try:
        app()
    except (ValueError, OSError) as error:
        if os.environ.get("NEURT_DEBUG"):
            raise
        print(f"neurt: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
