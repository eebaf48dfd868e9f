"""``nightshift nightly``: seven nights of fine-tunes in minutes, checked (docs/nightly.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def nightly(
    *,
    folder: Annotated[
        Path, typer.Option(help="Where all of it lies; what an earlier run left there goes.")
    ] = Path(".nightly"),
    keep_running: Annotated[
        bool, typer.Option("--keep-running", help="Leave the stack up if everything held.")
    ] = False,
) -> None:
    """Seven nights of fine-tunes in minutes, with faults; exit code 1 if one ends wrong."""
    from api.cli.nightly import example  # noqa: PLC0415 - psycopg takes a while to load

    example.run(folder.expanduser().resolve(), keep_running=keep_running)
