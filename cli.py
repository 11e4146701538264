"""The `neurt` command: one sub-command per job, each a thin call into the package."""

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
