"""The `neurt` command: one sub-command per job, each a thin call into the package."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
import typer.core
from huggingface_hub.errors import StrictDataclassError

from .commands import data, explain, groups, publishing, serving, training
from .dataset_scripts.wording import printable
from .ledger import plain_command


class _Commands(typer.core.TyperGroup):
    """Remembers the words of the command for the summary of what it made; `neurt demo` runs several in one process."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        ctx.meta["neurt.command"] = plain_command(["neurt", *args])
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Commands,
    help="NEuRT: a transformer for neuronal activity recorded with calcium imaging.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command()(data.simulate)
app.command()(data.simulate_corpus)
app.command("import")(data.import_)
app.command()(data.build_microns)
app.command()(data.inspect)
app.command()(training.pretrain)
app.command()(training.finetune)
app.command()(training.evaluate)
app.command()(training.embed)
app.command()(training.reconstruct)
app.command()(groups.crossval)
app.add_typer(explain.app, name="explain")
app.command()(training.convert)
app.command()(publishing.push_model)
app.command()(publishing.push_dataset)
app.command()(serving.app)
app.command()(publishing.reproduce)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder to make; it must not exist yet.")] = Path("demo_output"),
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Run the whole pipeline on simulated mice: about eight minutes on two cores."""
    from .demo import run_demo

    run_demo(output, seed, lambda command: app(command, standalone_mode=False))


def main() -> None:
    """Run the command line; bad input ends with one plain line and exit code 2."""
    try:
        app()
    except (ValueError, OSError, ArithmeticError, StrictDataclassError) as error:
        if os.environ.get("NEURT_DEBUG"):
            raise
        print(f"neurt: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
