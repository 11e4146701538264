"""Commands that show what a model does with recordings: explain attention, explain report."""

from pathlib import Path
from typing import Annotated

import typer

from ..dataset_scripts.wording import printable
from .options import Build, Seed, named_model

app = typer.Typer(help="Show what a model attends to, and what may be believed of it.", no_args_is_help=True)


@app.command()
def attention(
    model: Annotated[
        Path,
        typer.Argument(help="Folder of a masked model or a classifier, or the word shipped.", callback=named_model),
    ],
    build: Build,
    output: Annotated[Path, typer.Option(help="HTML page to make; it opens in any browser, without a network.")],
    recording: Annotated[str | None, typer.Option(help="recording_id.", show_default="the build's first")] = None,
    neuron: Annotated[str | None, typer.Option(help="roi_id.", show_default="the recording's first")] = None,
    start: Annotated[
        float | None,
        typer.Option(help="Second at which the window begins.", show_default="where its first window does"),
    ] = None,
    bins: Annotated[int, typer.Option(help="Most time bins that frames are pooled into, 2 to 128.")] = 64,
    hide: Annotated[bool, typer.Option("--hide", help="Hide spans of frames from the model, as in training.")] = False,
    missing_neighbours: Annotated[
        str, typer.Option(help="A recording without positions: error refuses it, mask uses own traces.")
    ] = "error",
    seed: Seed = 0,
) -> None:
    """Draw which times attend to which in one window: bertviz's head view and model view, in one page."""
    from ..explain.attention_page import write_attention_page

    window = write_attention_page(
        model,
        build,
        output,
        recording=recording,
        neuron=neuron,
        start=start,
        bins=bins,
        hide_spans=hide,
        seed=seed,
        missing_neighbours=missing_neighbours,
    )
    where = f"neuron {window.roi_id} of {window.recording.recording_id}, {window.start:.1f} to {window.end:.1f} s"
    print(f"attention within {printable(where)}; saved to {output}")


@app.command()
def report(
    context: typer.Context,
    model: Annotated[
        Path, typer.Argument(help="Folder of a classifier, as neurt finetune makes one.", callback=named_model)
    ],
    build: Build,
    output: Annotated[Path, typer.Option(help="Folder to make: report.html, explanation.json, pictures.")],
    label: Annotated[
        str | None, typer.Option(help="What the classifier tells of the animals: a label.", show_default="none")
    ] = None,
    subject: Annotated[
        list[str], typer.Option("--subject", help="Animal to explain; may be repeated.", show_default="all")
    ] = (),
    recording: Annotated[
        str | None, typer.Option(help="recording_id of the map.", show_default="the build's first")
    ] = None,
    windows: Annotated[int, typer.Option(help="Windows that explanations are tested on, of all recordings.")] = 64,
    missing_neighbours: Annotated[
        str, typer.Option(help="Recordings without positions: error skips them, mask uses own traces.")
    ] = "error",
    seed: Seed = 0,
) -> None:
    """Explain a classifier by several methods, test each of them, and say which may be believed."""
    from ..explain.explanation import ExplainOptions, explain
    from ..explain.report import lead, write_report
    from ..writing_aside import folder_aside, require_new

    require_new(output, "a folder")
    options = ExplainOptions(
        label=label,
        subjects=tuple(subject),
        recording=recording,
        windows=windows,
        missing_neighbours=missing_neighbours,
        seed=seed,
    )
    found = explain(model, build, options)
    with folder_aside(output) as aside:
        write_report(found, aside, model=model, build=build, command=context.meta["neurt.command"])
    print("\n".join(map(printable, lead(found))))
    print(f"saved to {output / 'report.html'}")
