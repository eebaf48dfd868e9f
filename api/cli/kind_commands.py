"""The commands that submit a job, one for each kind."""

from __future__ import annotations

import typer

from api.cli import bulk, training
from jobs import kinds

CONTEXT = {"help_option_names": ["-h", "--help"]}


def add_to(app: typer.Typer) -> None:
    """Add the command of every kind."""
    for kind, spec in kinds.KINDS.items():
        if issubclass(spec, kinds.BulkSpec):
            app.command(kind)(bulk.command(spec))
    app.command("finetune")(training.finetune)
    app.command("evaluate")(training.evaluate)
