"""The command that opens a page in the browser: app."""

from pathlib import Path
from typing import Annotated

import typer

from .options import named_model


def app(
    model: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a masked model or a classifier.",
            envvar="NEURT_MODEL",
            show_default="the shipped weights",
            callback=named_model,
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen at; 0.0.0.0 lets others in.", show_default="this machine alone"),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port.", show_default="the first that is free from 7860 on")] = None,
) -> None:
    """Serve a page in the browser: drop a recording, see its quality, hidden gaps filled, class and explanation.

    Needs the extra `app`. Uploads are limited in size and time, and removed as soon as they have been read.
    """
    from ..app import serve

    serve(model, host=host, port=port)
