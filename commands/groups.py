"""Commands about groups of animals: crossval."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Build, Pretrained, Seed


def crossval(
    context: typer.Context,
    build: Build,
    label: Annotated[str, typer.Option(help="What is to be told of the animals: a label of the build.")],
    output: Annotated[Path, typer.Option(help="Folder to make: report.md, results.json, figures.")],
    model: Pretrained = None,
    stratum: Annotated[
        str | None,
        typer.Option(help="Label (cage, litter, date) within which labels are permuted.", show_default="none"),
    ] = None,
    regression: Annotated[bool, typer.Option("--regression", help="The label is a number, not a class.")] = False,
    folds: Annotated[
        str | None,
        typer.Option(
            help="leave-pair-out, leave-one-out, or how many stratified folds.",
            show_default="leave-pair-out for two classes, else 5",
        ),
    ] = None,
    permutations: Annotated[
        int, typer.Option(help="Most labellings to try for the p-value; all are tried if they are fewer. 0: none.")
    ] = 1000,
    windows: Annotated[int, typer.Option(help="Most windows of a recording that the model reads.")] = 512,
    missing_neighbours: Annotated[
        str, typer.Option(help="Recordings without positions: error skips them, mask uses own traces.")
    ] = "error",
    finetune: Annotated[
        str | None,
        typer.Option(help="Fine-tune the model in each fold as well: default, or original.", show_default="frozen"),
    ] = None,
    finetune_permutations: Annotated[
        int, typer.Option(help="Labellings for which it is fine-tuned anew, for a p-value of it; takes long.")
    ] = 0,
    jobs: Annotated[int, typer.Option(help="Folds to fine-tune at a time, in processes of their own.")] = 1,
    abstain: Annotated[
        bool, typer.Option("--abstain", help="Leave out recordings unlike those that the model was pretrained on.")
    ] = False,
    seed: Seed = 0,
) -> None:
    """Tell groups of animals apart by held-out animals: scores, baselines, p-values, leaks and confounds."""
    from ..crossval.cohort import CLASSIFICATION, REGRESSION
    from ..crossval.data import StudyOptions
    from ..crossval.protocol import parse_scheme
    from ..crossval.study import crossval
    from ..loading import shipped_model

    options = StudyOptions(
        label=label,
        stratum=stratum,
        problem_type=REGRESSION if regression else CLASSIFICATION,
        scheme=None if folds is None else parse_scheme(folds, seed),
        permutations=permutations,
        windows=windows,
        missing_neighbours=missing_neighbours,
        finetune=finetune,
        finetune_permutations=finetune_permutations,
        abstain=abstain,
        seed=seed,
    )
    model, command = model or shipped_model(), context.meta["neurt.command"]
    crossval(build, output, model=model, options=options, jobs=jobs, command=command)
    print((output / "report.md").read_text(encoding="utf-8"))
    print(f"saved to {output}")
