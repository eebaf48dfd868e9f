"""``nightshift jobs``: look at jobs, control them, fetch and prove their results."""

from __future__ import annotations

import json as json_format
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import (
    connection,
    console,
    group_progress,
    groups,
    job_table,
    out_files,
    outcomes,
    progress_bars,
    runs,
    tables,
    times,
    training_progress,
)
from api.cli.arguments import (
    Follow,
    Force,
    JobId,
    JobOrGroupId,
    Json,
    Limit,
    WithDependents,
)
from api.cli.connection import Api
from api.cli.failures import FAILED, Failure
from api.cli.tables import Column, Listing
from api.client import Client
from jobs import ids, kinds
from jobs.states import JobState

app = typer.Typer(help="Jobs of every kind.")
runs.add_to(app)

Kind = StrEnum("Kind", {kind.upper(): kind for kind in kinds.KINDS})  # type: ignore[misc]
Job = dict[str, Any]

CHUNK_COLUMNS = {
    **dict.fromkeys(("id", "first_row", "rows", "state"), 0),
    "rows_failed": 1,
    "failures": 2,
    "crashes": 3,
    "owner": 4,
}
"""The fields of a chunk that are listed, and how soon each gives way to a narrow terminal."""

UNSHOWN = {"at", "reports", "floors"}
"""Facts of an event that a line has no room for; ``--json`` shows them."""


@app.command("list")
def list_jobs(
    *,
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="Only jobs of this kind.")] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Only jobs with this in their name.", parser=job_table.part_of_name
        ),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            metavar="TIME|DURATION",
            help="Only jobs submitted since then: `2026-11-30`, or `2h` ago.",
            parser=times.since,
        ),
    ] = None,
    group: Annotated[
        str | None, typer.Option(metavar="GROUP", help="Only jobs of this group.")
    ] = None,
    limit: Limit = 20,
    json: Json = False,
    api: Api = None,
) -> None:
    """Jobs, newest first."""
    filters: Job = {"state": state, "kind": kind, "name": name, "since": since, "group": group}
    with connection.connect(api) as client:
        found = Listing.first(client.jobs(**filters), limit)
        if found.more:
            found = found.of(client.count_jobs(**filters))
    tables.listing(found, job_table.COLUMNS, job_table.row, json=json)


@app.command("show")
def show(job_id: JobId, *, json: Json = False, api: Api = None) -> None:
    """One job, in full."""
    with connection.connect(api) as client:
        job = client.get(job_id)
    if json:
        console.as_json(job)
        return
    tables.facts(_facts(job))
    if job["histogram"]:
        console.line()
        tables.histogram(job["histogram"], rows=job["rows"]["done"])
    progress_bars.rejected(job)
    progress_bars.findings(job)


@app.command("watch")
def watch(job_id: JobOrGroupId, *, json: Json = False, api: Api = None) -> None:
    """Show progress until a job, or all of a group, have ended; the exit code tells how."""
    with connection.connect(api) as client:
        if job_id.startswith(ids.GROUP):
            with progress_bars.leaving(job_id):
                group = group_progress.watch(client, job_id)
            groups.deliver(client, group, json=json)
            return
        client.get(job_id)
        with progress_bars.leaving(job_id):
            job = progress_bars.job(client, job_id)
    if json:
        console.as_json(outcomes.told(job))
    else:
        progress_bars.summary(job)
    outcomes.check(job)


@app.command("cancel")
def cancel(
    job_id: JobOrGroupId,
    *,
    with_dependents: WithDependents = False,
    json: Json = False,
    api: Api = None,
) -> None:
    """Stop a job at the next chunk boundary, or all of a group; what is done is kept."""

    def action(client: Client, job_id: str) -> Job:
        if job_id.startswith(ids.GROUP):
            return client.groups.cancel(job_id)
        return client.cancel(job_id, with_dependents=with_dependents)

    _control(action, job_id, json=json, api=api)


@app.command("pause")
def pause(job_id: JobId, *, json: Json = False, api: Api = None) -> None:
    """Begin nothing new; chunks that are under way end."""
    _control(Client.pause, job_id, json=json, api=api)


@app.command("resume")
def resume(job_id: JobId, *, json: Json = False, api: Api = None) -> None:
    """Let a paused job go on."""
    _control(Client.resume, job_id, json=json, api=api)


@app.command("retry")
def retry(
    job_id: JobOrGroupId,
    *,
    with_dependents: WithDependents = False,
    json: Json = False,
    api: Api = None,
) -> None:
    """Do the failed rows of an ended job again, and what was never done; all of a group."""

    def action(client: Client, job_id: str) -> Job:
        if job_id.startswith(ids.GROUP):
            return client.groups.retry(job_id)
        return client.retry(job_id, with_dependents=with_dependents)

    _control(action, job_id, json=json, api=api)


@app.command("delete")
def delete(job_id: JobId, *, json: Json = False, api: Api = None) -> None:
    """Delete an ended job with its results; versions that it registered stay."""
    with connection.connect(api) as client:
        done = client.delete_job(job_id)
    console.answer(done, f"{job_id} is deleted", json=json)


@app.command("results")
def results(
    job_id: JobId,
    *,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for rows to come.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write them to this file; whole or not at all.")
    ] = None,
    force: Force = False,
    api: Api = None,
) -> None:
    """Result rows as JSON lines, in the order of the corpus; with --out the job's output file."""
    if out is not None:
        out_files.check(out, force=force)
    with connection.connect(api) as client:
        if out is None:
            for row in client.results(job_id, follow=follow):
                console.as_json_line(row)
        else:
            _write(client, job_id, out)


@app.command("verify")
def verify(job_id: JobId, *, json: Json = False, api: Api = None) -> int:
    """Recount inputs against outputs from storage; exit code 1 on any difference."""
    with connection.connect(api) as client:
        report = client.verification(job_id)
    if json:
        console.as_json(report)
    else:
        _show_report(report)
    return 0 if report["ok"] else FAILED


@app.command("events")
def events(
    job_id: JobId,
    *,
    follow: Follow = False,
    json: Json = False,
    api: Api = None,
) -> None:
    """What happened to a job, in order."""
    with connection.connect(api) as client:
        for event in client.watch(job_id):
            if event.type == "progress" and not follow:
                return
            if event.type != "progress":
                _show_event(event.type, event.data, id=event.id, json=json)


@app.command("chunks")
def chunks(job_id: JobId, *, limit: Limit = 100, json: Json = False, api: Api = None) -> None:
    """A job's chunks, in row order."""
    with connection.connect(api) as client:
        found = Listing.first(client.chunks(job_id), limit)
    tables.listing(
        found,
        [Column(name.replace("_", " ").upper(), cut) for name, cut in CHUNK_COLUMNS.items()],
        lambda chunk: [chunk[name] for name in CHUNK_COLUMNS],
        json=json,
    )


@app.command("inputs")
def inputs(job_id: JobId, *, limit: Limit = 100, json: Json = False, api: Api = None) -> None:
    """The objects that a job reads, in the order of reading, with rows and hashes."""
    with connection.connect(api) as client:
        found = Listing.first(client.inputs(job_id), limit)
    tables.listing(found, job_table.INPUT_COLUMNS, job_table.input_row, json=json)


def _control(
    action: Callable[[Client, str], Job], job_id: str, *, json: bool, api: str | None
) -> None:
    with connection.connect(api) as client:
        job = action(client, job_id)
    console.answer(job, f"{job['id']} is {job['state']}", json=json)


def _write(client: Client, job_id: str, out: Path) -> None:
    """The job's own file where its format fits; JSON lines can be had of every job."""
    job = client.get(job_id)
    made = (job["output"] or {}).get("format")
    if made and out.suffix == f".{made}":
        with progress_bars.transfer("fetching", out) as progress:
            client.download(job_id, out, progress=progress)
    elif out.suffix == ".jsonl":
        _write_lines(client, job_id, out)
    else:
        kinds = ".jsonl" if made in (None, "jsonl") else f".jsonl or .{made}"
        raise Failure(f"results of {job_id} can be written as {kinds}, not {out.name!r}")


def _write_lines(client: Client, job_id: str, out: Path) -> None:
    part = out.with_name(f"{out.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            for row in client.results(job_id):
                file.write(f"{json_format.dumps(row, ensure_ascii=False)}\n")
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def _facts(job: Job) -> list[tuple[str, Any]]:
    error = job["error"]
    return [
        ("job", job["id"]),
        ("name", job["name"]),
        ("kind", job["kind"]),
        ("state", job["state"]),
        ("waiting", job["waiting_reason"]),
        ("group", job["group"] and f"{job['group']}, as {job['member']}"),
        ("depends on", ", ".join(map(_need, job["depends_on"])) or None),
        ("last error", job.get("last_error")),
        ("error", f"{error['message']} ({error['code']})" if error else None),
        ("skipped", job.get("skipped")),
        ("model", job["model"]),
        ("pinned", job["model_pinned"]),
        ("schedule", job.get("schedule") and _schedule(job["schedule"])),
        *progress_bars.reading(job),
        *(training_progress.detail_rows(job) if job["training"] else _bulk_facts(job)),
        ("eta", job["eta_seconds"] and console.duration(job["eta_seconds"])),
        ("created", console.moment(job["created_at"])),
        ("finished", job["finished_at"] and console.moment(job["finished_at"])),
    ]


def _schedule(fire: Job) -> str:
    return f"{fire['name']}, fire of {console.moment(fire['fire_time'])} UTC ({fire['origin']})"


def _need(need: Job) -> str:
    """A job that this one depends on."""
    name = f"{need['name']} " if need["name"] else ""
    ending = ", to end" if need["on"] == "end" else ""
    return f"{name}{need['job']} ({need['state']}{ending})"


def _bulk_facts(job: Job) -> list[tuple[str, Any]]:
    rows, chunks = job["rows"], job["chunks"]
    return [
        ("rows", f"{console.number(rows['done'])} of {console.number(rows['total'])}"),
        ("under way", rows["under_way"] and f"{console.number(rows['under_way'])} rows more"),
        ("failed rows", console.number(rows["failed"])),
        ("chunks", ", ".join(f"{count} {state}" for state, count in chunks.items())),
        ("rate", console.rate(job["rate"])),
        ("tokens", console.number(job["usage"]["tokens"])),
        ("quality", job["quality"] and progress_bars.quality(job["quality"])),
        ("agreement", job["agreement"] and progress_bars.agreement(job["agreement"])),
        ("engine", console.duration(job["usage"]["seconds"])),
    ]


def _show_report(report: Job) -> None:
    for name in ("rows_total", "rows_input", "rows_output", "rows_failed", "missing", "duplicated"):
        console.line(f"{name.replace('_', ' ').ljust(12)}{console.number(report[name])}")
    if report.get("unhashed"):
        count = console.number(report["unhashed"])
        console.line(f"{count} parts have no hash: an earlier version wrote them")
    for problem in report["problems"]:
        console.line(f"differs: {problem}")
    console.line(_verdict(report))


def _verdict(report: Job) -> str:
    if not report["ok"]:
        return "NOT verified"
    if report["missing"]:
        return "verified, as far as the job came before it ended"
    return "verified: every input row is exactly one output row"


def _show_event(kind: str, data: Job, *, id: str | None, json: bool) -> None:  # noqa: A002
    if json:
        console.as_json_line({"id": id, "type": kind, **data})
        return
    facts = " ".join(f"{name}={value}" for name, value in data.items() if name not in UNSHOWN)
    console.line(f"{console.moment(data.get('at'))}  {kind}  {facts}")
