"""The command line ``nightshift``.

Exit codes: 0 well; 1 the job failed or was cancelled, or a verification found a difference; 2 bad
usage or bad input; 3 the API cannot be reached; 4 a fine-tune succeeded and was not promoted; 5 the
job had no rows; 70 a fault of ours; 130 Ctrl-C; 143 SIGTERM. Every failure is one line on stderr.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer.main

from api.cli import (
    audit,
    backup,
    connection,
    console,
    demo,
    doctor,
    failures,
    files,
    groups,
    hosts,
    jobs,
    keys,
    kind_commands,
    models,
    nightly,
    pools,
    profiles,
    projects,
    retention,
    schedules,
    signals,
    storage,
    up,
    webhooks,
    why,
    workers,
)
from jobs import distribution

app = typer.Typer(
    name="nightshift",
    context_settings=kind_commands.CONTEXT,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - as typer hands it over
    if wanted:
        version = distribution.version() or "of a source tree that is not installed"
        console.line(f"nightshift {version}")
        raise typer.Exit


@app.callback()
def before(
    *,
    api: connection.Api = None,
    profile: connection.Profile = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Label, watch and fetch: a job queue for machine learning on machines of your own."""
    del version
    connection.before.set(connection.Before(api=api, profile=profile))


app.command("up")(up.up)
app.command("down")(up.down)
app.command("status")(up.status)
app.command("doctor")(doctor.doctor)
app.command("backup")(backup.backup)
app.command("restore")(backup.restore)
app.command("demo")(demo.demo)
app.command("nightly")(nightly.nightly)
kind_commands.add_to(app)
jobs.app.command("why")(why.why)
jobs.app.command("keep")(retention.keep)
jobs.app.command("retention")(retention.of_job)
app.add_typer(jobs.app, name="jobs")
app.add_typer(schedules.app, name="schedules")
app.add_typer(groups.app, name="groups")
app.add_typer(models.app, name="models")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(files.app, name="files")
app.add_typer(retention.app, name="retention")
app.add_typer(storage.app, name="storage")
app.add_typer(hosts.app, name="hosts")
app.add_typer(workers.app, name="workers")
app.add_typer(pools.app, name="pools")
app.add_typer(projects.app, name="projects")
app.add_typer(keys.app, name="keys")
app.command("audit")(audit.audit)
app.add_typer(profiles.app, name="profiles")


@functools.cache
def _read_command() -> Any:
    """Every command with its options, read once: it takes longer than most commands do."""
    return typer.main.get_command(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with signals.listening() as heard:
            command = _read_command()
            code = command(given or ["--help"], prog_name="nightshift", standalone_mode=False)
            sys.stdout.flush()
    except SystemExit as ended:  # how typer and rich answer a reader that has gone
        if isinstance(ended.__context__, BrokenPipeError):
            return failures.report(ended.__context__)
        raise
    except Exception as error:  # noqa: BLE001 - none shows its stack to a user
        return failures.report(error)
    if code == failures.INTERRUPTED:  # typer's answer to an interrupt that no command took
        return failures.stopped(by_sigterm=heard.sigterm)
    return code if isinstance(code, int) else 0
