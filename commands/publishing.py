"""Commands that publish on the Hub, and that check what was published: push-model, push-dataset, reproduce."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Build, named_model

_RepoId = Annotated[str, typer.Argument(help="USER/NAME on the Hub; it is made if it is new.", show_default=False)]
_Revision = Annotated[str | None, typer.Option(help="Branch, made if it is new.", show_default="main")]
_Public = Annotated[bool, typer.Option("--public", help="Let everyone see it. Without, the repository is private.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would go, and how large it is.")]


def push_model(
    folder: Annotated[
        Path,
        typer.Argument(
            help="A model folder: what `neurt pretrain` or `neurt finetune` made, or the word shipped.",
            callback=named_model,
            show_default=False,
        ),
    ],
    repo_id: _RepoId,
    revision: _Revision = None,
    public: _Public = False,
    dry_run: _DryRun = False,
) -> None:
    """Publish a model on the Hub as one commit: weights, configurations, code, card and results, nothing else.

    Log in with `hf auth login`, or set HF_TOKEN. What is there already is not sent again: after an interruption the
    same command completes the upload, and until then nothing of it can be seen.
    """
    from ..publish import push_model

    print(push_model(folder, repo_id, private=not public, revision=revision, dry_run=dry_run).report())


def push_dataset(
    build: Build, repo_id: _RepoId, revision: _Revision = None, public: _Public = False, dry_run: _DryRun = False
) -> None:
    """Publish a build on the Hub as one commit: card, manifest and the Parquet files that it names, digests checked.

    Log in with `hf auth login`, or set HF_TOKEN. What is there already is not sent again: after an interruption the
    same command completes the upload, and until then nothing of it can be seen.
    """
    from ..publish import push_dataset

    print(push_dataset(build, repo_id, private=not public, revision=revision, dry_run=dry_run).report())


def reproduce(
    folder: Annotated[
        Path,
        typer.Argument(help="A model folder with its results.json, or the word shipped.", callback=named_model),
    ],
    build: Annotated[
        Path | None,
        typer.Option(
            help="The build that the model was trained on; the shipped weights need none.", show_default="none"
        ),
    ] = None,
    only: Annotated[
        list[str],
        typer.Option(
            help="Measurement to make again, by its name in results.json; may be repeated.", show_default="all"
        ),
    ] = (),
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder in which benchmarks leave their tables and figures; what lies there is not measured again.",
            show_default="nothing stays",
        ),
    ] = None,
) -> None:
    """Measure again every number of a model's results.json, and say which differ; exit code 1 if any does.

    Digests, counts and words are compared exactly, fractions to a thousandth: their last digits depend on processor,
    threads and versions. All measurements of the shipped weights take hours, and some need real recordings.
    """
    from ..reproduce import reproduce

    agrees = True
    for outcome in reproduce(folder, build=build, only=only, output=output):
        print(outcome.report(), flush=True)
        agrees &= outcome.agrees
    print("all as before" if agrees else "not all as before, or not all measured again")
    raise typer.Exit(0 if agrees else 1)
