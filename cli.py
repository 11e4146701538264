"""The `neurt` command: one sub-command per job, each a thin call into the package."""

import os
import sys

import typer

app = typer.Typer(
    help="NEuRT: a transformer for neuronal activity recorded with calcium imaging.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


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
