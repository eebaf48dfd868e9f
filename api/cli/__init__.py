"""The command line ``nightshift``.

Exit codes: 0 well; 1 the job failed or was cancelled, or a verification found a difference; 2 bad
usage or bad input; 3 the API cannot be reached; 130 Ctrl-C. Every failure is one line on stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from api.cli import (
    bulk,
    demo,
    failures,
    files,
    hosts,
    jobs,
    models,
    training,
    up,
    workers,
)
from jobs import kinds

app = typer.Typer(
    name="nightshift",
    help="Label, watch and fetch: a job queue for machine learning on machines of your own.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("up")(up.up)
app.command("down")(up.down)
app.command("status")(up.status)
app.command("demo")(demo.demo)
for kind, spec in kinds.KINDS.items():
    if issubclass(spec, kinds.BulkSpec):
        app.command(kind)(bulk.command(spec))
app.command("finetune")(training.finetune)
app.command("evaluate")(training.evaluate)
app.add_typer(jobs.app, name="jobs")
app.add_typer(models.app, name="models")
app.add_typer(files.app, name="files")
app.add_typer(hosts.app, name="hosts")
app.add_typer(workers.app, name="workers")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(given or ["--help"], prog_name="nightshift", standalone_mode=False)
    except failures.KNOWN as error:
        return failures.report(error)
    return code if isinstance(code, int) else 0
