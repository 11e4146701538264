"""What the sub-commands share."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer


def named_model(model: Path | None) -> Path | None:
    """Turn the word `shipped`, where no folder has that name, into the folder of the weights of the package."""
    if model != Path("shipped") or model.exists():
        return model
    from ..loading import shipped_model

    return shipped_model()


_in_split = functools.partial(typer.Option, rich_help_panel="Who is tested")
_in_training = functools.partial(typer.Option, rich_help_panel="Training")

Build = Annotated[Path, typer.Argument(help="A Parquet build: what `neurt import` or `neurt simulate` made.")]
Pretrained = Annotated[
    Path | None, typer.Option(help="Folder of the model.", show_default="the shipped weights", callback=named_model)
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
# How the fields of the option classes appear on the command line, by name.
FLAGS = {
    "split_by": Annotated[str, _in_split("--split-by", help="subject, or session where there is one animal.")],
    "test": Annotated[
        list[str],
        _in_split("--test", help="Id to hold out; may be repeated.", show_default="the build's test split, or drawn"),
    ],
    "test_fraction": Annotated[float, _in_split(help="Share of ids to hold out if none is named.")],
    "validation_fraction": Annotated[
        float, _in_split(help="Share of the others that chooses the checkpoint; 0 for the last one.")
    ],
    "allow_shared_subjects": Annotated[
        bool, _in_split("--allow-shared-subjects", help="Train on animals that are tested.")
    ],
    "freeze": Annotated[str, _in_training(help="What keeps its weights: none, embeddings or encoder.")],
    "layer_decay": Annotated[float, _in_training(help="Factor on the learning rate per layer down; 1: none.")],
    "head_learning_rate": Annotated[float, _in_training(help="Learning rate of pooling and classifier.")],
    "epochs": Annotated[int, _in_training(help="Passes over the training windows.")],
    "batch_size": Annotated[int, _in_training(help="Windows in one step, over all processes.")],
    "learning_rate": Annotated[float, _in_training(help="Peak learning rate of AdamW.")],
    "weight_decay": Annotated[float, _in_training(help="Weight decay.")],
    "warmup_fraction": Annotated[float, _in_training(help="Share of the steps in which the learning rate rises.")],
    "schedule": Annotated[str, _in_training(help="Learning rate after that: cosine, linear or constant_with_warmup.")],
    "max_gradient_norm": Annotated[float, _in_training(help="Gradients are clipped to this norm.")],
    "accumulation_steps": Annotated[int, _in_training(help="Pieces a batch is cut into to save memory.")],
    "mixed_precision": Annotated[str, _in_training(help="no, bf16 or fp16.")],
    "patience": Annotated[
        int | None,
        _in_training(help="Epochs without a lower validation loss after which to stop.", show_default="go on"),
    ],
    "compile": Annotated[bool, _in_training("--compile", help="Compile the model with torch.compile.")],
    "log_with": Annotated[
        list[str],
        _in_training("--log-with", help="tensorboard, wandb, ...: a tracker; may be repeated.", show_default="none"),
    ],
    "checkpoint_every": Annotated[int, _in_training(help="Steps between checkpoints.")],
    "num_workers": Annotated[int, _in_training(help="Processes that prepare batches.")],
    "seed": Seed,
}


def with_flags(*classes: type, **defaults: Any) -> Callable[[Callable], Callable]:
    """Give a command the flags of option classes: those of their fields that have one, which reach it as `**flags`.

    Args:
        *classes: Dataclasses.
        **defaults: Where they are not those of the classes.
    """
    fields = {field.name: field for cls in classes for field in dataclasses.fields(cls) if field.name in FLAGS}

    def decorate(command: Callable) -> Callable:
        own = [p for p in inspect.signature(command).parameters.values() if p.kind is not p.VAR_KEYWORD]
        added = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name, field.default), annotation=FLAGS[name]
            )
            for name, field in fields.items()
        ]
        command.__signature__ = inspect.Signature([*own, *added])
        return command

    return decorate


def chosen(options: type, flags: Mapping[str, Any]):
    """Options from the flags of the same names."""
    names = {field.name for field in dataclasses.fields(options)}
    return options(**{name: value for name, value in flags.items() if name in names})


def task_weights(words: Sequence[str]) -> dict[str, float]:
    """The weight of each task from words like "span=3"; a name alone weighs 1.

    Raises:
        ValueError: If a weight is no number, or a task is named twice.
    """
    weights = {}
    for word in words:
        name, _, weight = word.partition("=")
        try:
            weights[name] = float(weight or 1)
        except ValueError:
            raise ValueError(f"expected a task and its weight, like span=3, got {word}") from None
    if len(weights) < len(words):
        raise ValueError(f"expected each task once, got {' '.join(words)}")
    return weights
