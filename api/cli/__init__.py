"""The command line ``nightshift``.

Exit codes: 0 well; 1 the job failed or was cancelled, or a verification found a difference; 2 bad
usage or bad input; 3 the API cannot be reached; 130 Ctrl-C. Every failure is one line on stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from api.cli import (
    classify,
    demo,
    embed,
    failures,
    files,
    finetune,
    generate,
    hosts,
    jobs,
    models,
    pipeline,
    text2text,
    up,
    workers,
)

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
app.command("classify")(classify.classify)
app.command("embed")(embed.embed)
app.command("generate")(generate.generate)
app.command("text2text")(text2text.text2text)
app.command("pipeline")(pipeline.pipeline)
app.command("finetune")(finetune.finetune)
app.command("evaluate")(finetune.evaluate)
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
