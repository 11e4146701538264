"""Commands that train and use models: pretrain, finetune, evaluate, embed, reconstruct, convert."""

import functools
import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..dataset_scripts.wording import count, printable, some
from ..masking import PRETRAINING_TASKS
from ..training.options import FinetuneOptions, SplitOptions, TrainingOptions
from .options import Build, Pretrained, Seed, chosen, named_model, task_weights, with_flags

_Output = Annotated[Path, typer.Option(help="Folder of the new model.")]
_in_windows = functools.partial(typer.Option, rich_help_panel="Windows")
_in_training = functools.partial(typer.Option, rich_help_panel="Training")
_Stride = Annotated[int | None, _in_windows(help="Frames between window starts.", show_default="the window length")]
_Missing = Annotated[str, _in_windows(help="Recordings without positions: error skips them, mask uses own traces.")]
_Cache = Annotated[
    Path | None,
    _in_windows(
        help="Folder to keep windows in, for builds larger than memory: 20 bytes for each neuron and frame.",
        show_default="in memory",
    ),
]
_Task = Annotated[
    list[str],
    _in_training(
        help="What is hidden, and its weight: span, neuron, near, far, population or forecast; may be repeated.",
        metavar="NAME=WEIGHT",
        show_default=" ".join(f"{name}={weight:g}" for name, weight in PRETRAINING_TASKS.items()),
    ),
]
_Resume = Annotated[bool, _in_training("--resume", help="Go on from the last checkpoint in the output folder.")]


def _report(output: Path, results: dict) -> None:
    """Print the summary of a training run, on one process only."""
    if int(os.environ.get("RANK", 0)) == 0:
        _print_seen(results["seen_in_training"])
        _print_left_out(results["skipped"], results["dropped"])
        print((output / "summary.md").read_text(encoding="utf-8"))
        print(f"saved to {output}")


def _print_left_out(skipped: Mapping[str, str], dropped: Mapping[str, Mapping[str, int]]) -> None:
    """Say which recordings gave nothing and why, and for each reason how many neurons of which others did not."""
    for name, why in skipped.items():
        print(printable(f"skipped {name}: {why}"))
    for reason in dict.fromkeys(itertools.chain.from_iterable(dropped.values())):
        numbers = {name: counts[reason] for name, counts in dropped.items() if reason in counts}
        where = some([f"{name} ({number})" for name, number in numbers.items()])
        print(printable(f"left out {count(sum(numbers.values()), 'neuron')} ({reason}): {where}"))


def _print_seen(subjects: list[str]) -> None:
    if subjects:
        print(f"seen in pretraining, so no test of generalisation to new animals: {', '.join(subjects)}")


@with_flags(SplitOptions, TrainingOptions, validation_fraction=0.1)
def pretrain(
    context: typer.Context,
    build: Build,
    output: _Output,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Weights to start from: a folder, or the word shipped.", show_default="new ones", callback=named_model
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="config.json of a new model.", show_default="built in")] = None,
    window_length: Annotated[
        int | None, _in_windows(help="Frames in a window.", show_default="128, or as --model")
    ] = None,
    window_stride: _Stride = None,
    neighbour_radius: Annotated[
        float | None, _in_windows(help="Neurons closer than this are near.", show_default="0.3, or as --model")
    ] = None,
    radius_unit: Annotated[
        str | None, _in_windows(help="um, px, or quantile of distances.", show_default="quantile, or as --model")
    ] = None,
    normalization: Annotated[
        str | None, _in_windows(help="minmax, zscore or none.", show_default="minmax, or as --model")
    ] = None,
    missing_neighbours: _Missing = "error",
    cache: _Cache = None,
    task: _Task = (),
    resume: _Resume = False,
    **flags: Any,
) -> None:
    """Pretrain by reconstructing what is hidden, and test on held-out animals beside interpolation."""
    from .. import train

    processor = train.window_processor(
        model,
        window_length=window_length,
        window_stride=window_stride,
        neighbour_radius=neighbour_radius,
        radius_unit=radius_unit,
        normalization=normalization,
    )
    options = chosen(TrainingOptions, flags)
    results = train.pretrain(
        build,
        output,
        tasks=task_weights(task) if task else PRETRAINING_TASKS,
        split=chosen(SplitOptions, flags),
        options=options,
        model=train.pretraining_model(model, config, window_length=processor.window_length, seed=options.seed),
        processor=processor,
        missing_neighbours=missing_neighbours,
        cache=cache,
        resume=resume,
        command=context.meta["neurt.command"],
    )
    _report(output, results)


@with_flags(FinetuneOptions, SplitOptions, TrainingOptions, test_fraction=0.3, epochs=5, learning_rate=1e-4)
def finetune(
    context: typer.Context,
    build: Build,
    output: _Output,
    label: Annotated[str, typer.Option(help="Label to learn: a column of the build.")],
    model: Pretrained = None,
    window_stride: _Stride = None,
    missing_neighbours: _Missing = "error",
    resume: _Resume = False,
    **flags: Any,
) -> None:
    """Fine-tune a pretrained model to tell groups of animals apart, and test on held-out animals."""
    from .. import train
    from ..loading import shipped_model

    model = model or shipped_model()
    results = train.finetune(
        build,
        output,
        model=model,
        finetuning=chosen(FinetuneOptions, {"label": label, **flags}),
        processor=train.window_processor(model, window_stride=window_stride),
        split=chosen(SplitOptions, flags),
        options=chosen(TrainingOptions, flags),
        missing_neighbours=missing_neighbours,
        resume=resume,
        command=context.meta["neurt.command"],
    )
    _report(output, results)


def evaluate(
    model: Annotated[
        Path,
        typer.Argument(help="Folder of a masked model or a classifier, or the word shipped.", callback=named_model),
    ],
    build: Build,
    label: Annotated[str | None, typer.Option(help="Label to score a classifier on.")] = None,
    subject: Annotated[list[str], typer.Option(help="Animal to use; may be repeated.", show_default="all")] = (),
    task: Annotated[
        str, typer.Option(help="What to hide: span, neuron, near, far, population or forecast; masked models only.")
    ] = "span",
    missing_neighbours: _Missing = "error",
    seed: Seed = 0,
    output: Annotated[Path | None, typer.Option(help="JSON file to make with the scores.")] = None,
) -> None:
    """Score a model on a build: reconstruction beside its baselines, or groups by window, recording and subject."""
    from ..inference import evaluate_model

    evaluation = evaluate_model(
        model,
        build,
        subjects=subject,
        label=label,
        task=task,
        missing_neighbours=missing_neighbours,
        seed=seed,
        output=output,
    )
    _print_seen(evaluation.seen)
    _print_left_out(evaluation.skipped, evaluation.dropped)
    print(evaluation.scores.to_markdown())
    if label is not None:
        print("Simple statistics, fitted to the training animals, stand in the summary.md of the fine-tuning.")


_Rows = Annotated[Path, typer.Option(help="Parquet file to write: a row per window, keyed by roi_id and start_s.")]


def embed(build: Build, output: _Rows, model: Pretrained = None, missing_neighbours: _Missing = "error") -> None:
    """Write an embedding of each neuron's windows to Parquet."""
    from ..inference import embed
    from ..loading import shipped_model

    _print_counts(embed(model or shipped_model(), build, output, missing_neighbours=missing_neighbours), output)


def reconstruct(
    build: Build,
    output: _Rows,
    model: Pretrained = None,
    span: Annotated[int, typer.Option(help="Frames hidden together, 1 to 10.")] = 5,
    missing_neighbours: _Missing = "error",
) -> None:
    """Write each neuron's trace, and the trace predicted with each frame hidden in turn, to Parquet."""
    from ..inference import reconstruct
    from ..loading import shipped_model

    counts = reconstruct(model or shipped_model(), build, output, span=span, missing_neighbours=missing_neighbours)
    _print_counts(counts, output)


def _print_counts(counts: dict, output: Path) -> None:
    _print_left_out(counts["skipped"], counts["dropped"])
    print(f"{counts['rows']} windows of {counts['recordings']} recordings; saved to {output}")


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of the original NEuRT (.pth), of either kind.")],
    config: Annotated[Path, typer.Option(help="The model_cfg.json that it was trained with.")],
    output: Annotated[Path, typer.Option(help="Folder to make; it must not exist yet.")],
) -> None:
    """Convert a checkpoint of the original NEuRT into a folder that from_pretrained opens."""
    from ..convert_checkpoint import convert_checkpoint

    conversion = convert_checkpoint(checkpoint, config, output)
    print(conversion.summary())
    print(f"saved to {output}")
