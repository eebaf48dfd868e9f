"""``nightshift schedules``: jobs by the clock."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import arguments, connection, console, groups, schedule_options, tables, times
from api.cli.arguments import Json, Limit
from api.cli.connection import Api
from api.cli.failures import FAILED, Failure
from api.cli.schedule_options import OPTIONS, WORDS
from api.cli.tables import WHOLE, Column, Listing
from jobs.schedules.policy import Overlap
from jobs.schedules.states import FireState

app = typer.Typer(help="Jobs by the clock.")

Answer = dict[str, Any]

Name = Annotated[
    str,
    typer.Argument(
        metavar="SCHEDULE", help="The name or the id of a schedule.", parser=arguments.schedule
    ),
]
NewName = Annotated[
    str, typer.Argument(metavar="NAME", help="Its name.", parser=arguments.schedule)
]
Spec = Annotated[
    Path | None,
    typer.Option("--spec", help="JSON or YAML with the spec of the job that each fire submits."),
]
GroupFile = Annotated[
    Path | None,
    typer.Option(
        "--group",
        help="JSON or YAML with the jobs that each fire submits as a group, as `nightshift groups "
        "create` takes it. Local files that it names are uploaded.",
    ),
]
Note = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Why; it is shown with the schedule.")
]
Moment = Annotated[datetime, typer.Option(metavar="TIME|DURATION", parser=times.since)]

COLUMNS = (
    Column("NAME"),
    Column("STATE"),
    Column("WHEN", cut=3),
    Column("NEXT", cut=2, least=WHOLE),
    Column("LAST", cut=4, least=WHOLE),
    Column("LAST STATE", cut=1),
)
FIRE_COLUMNS = (
    Column("FIRE TIME", least=WHOLE),
    Column("LOCAL TIME", cut=4, least=WHOLE),
    Column("STATE"),
    Column("ORIGIN", cut=3),
    Column("JOB", cut=1, least=WHOLE),
    Column("REASON", cut=2),
)


@dataclass(frozen=True, kw_only=True)
class CreateArguments:
    """What ``create`` takes beside the options of a schedule."""

    name: NewName
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- COMMAND]", help="What each fire submits, such as `classify FILE -m MODEL`."
        ),
    ] = None
    spec: Spec = None
    group: GroupFile = None
    json: Json = False
    idempotency_key: arguments.IdempotencyKey = None
    api: Api = None


@dataclass(frozen=True, kw_only=True)
class EditArguments:
    """What ``edit`` takes beside the options of a schedule."""

    schedule: Name
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND]", help="What each fire submits from now on."),
    ] = None
    spec: Spec = None
    group: GroupFile = None
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="A new name.", parser=arguments.schedule)
    ] = None
    unset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OPTION", help="Give an option its default again. May be given several times."
        ),
    ] = None
    json: Json = False
    api: Api = None


def _create(given: CreateArguments, options: Answer) -> None:
    """Make a schedule: when it fires, and what each fire submits."""
    jobs = schedule_options.template(given.spec, given.group, given.command or (), api=given.api)
    if jobs is None:
        raise Failure(
            "what does each fire submit? Give --spec FILE, --group FILE, or a command behind --, "
            "such as -- classify FILE --model MODEL"
        )
    body = {"name": given.name, **schedule_options.change(options, ()), "jobs": jobs}
    body["timing"] = _given(body.get("timing", {}))
    with connection.connect(given.api) as client, _spoken(jobs):
        made = client.schedules.create(body, idempotency_key=given.idempotency_key)
    console.answer(made, f"{made['name']} fires {_when(made)}", json=given.json)


def _edit(given: EditArguments, options: Answer) -> None:
    """Change what is given; fires that were due before are let go first."""
    change = schedule_options.change(options, given.unset or ())
    jobs = schedule_options.template(given.spec, given.group, given.command or (), api=given.api)
    if jobs is not None:
        change["jobs"] = jobs
    if given.name is not None:
        change["name"] = given.name
    if not change:
        raise Failure("nothing is changed: give an option, --spec, --group, or a command behind --")
    with connection.connect(given.api) as client, _spoken(jobs):
        edited = client.schedules.edit(given.schedule, change)
    sentence = f"{edited['name']} has version {edited['version']} and fires {_when(edited)}"
    console.answer(edited, sentence, json=given.json)


def _command(arguments_of: type[Any], run: Callable[[Any, Answer], None]) -> Callable[..., None]:
    """A command with the options of a schedule."""

    def command(**given: Any) -> None:
        own = {field.name: given.pop(field.name) for field in fields(arguments_of)}
        with WORDS.spoken():
            run(arguments_of(**own), given)

    first, *rest = inspect.signature(arguments_of, eval_str=True).parameters.values()
    parameters = [first, *(option.parameter for option in OPTIONS), *rest]
    command.__doc__ = run.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


app.command("create")(_command(CreateArguments, _create))


@app.command("list")
def list_schedules(*, limit: Limit = 50, json: Json = False, api: Api = None) -> None:
    """Schedules, newest first."""
    with connection.connect(api) as client:
        found = Listing.first(client.schedules.list(), limit)
    tables.listing(found, COLUMNS, _row, json=json)


@app.command("show")
def show(schedule: Name, *, json: Json = False, api: Api = None) -> None:
    """One schedule, in full."""
    with connection.connect(api) as client:
        found = client.schedules.get(schedule)
    if json:
        console.as_json(found)
        return
    tables.facts(_facts(found))


@app.command("preview")
def preview(
    schedule: Name,
    *,
    count: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="How many.")] = 20,
    json: Json = False,
    api: Api = None,
) -> None:
    """Its next fires, in UTC and in its zone."""
    with connection.connect(api) as client:
        found = client.schedules.preview(schedule, count=count)
    if json:
        console.as_json(found)
        return
    console.note(found["words"])
    tables.table(
        ("UTC", found["time_zone"], "LET GO AT"),
        [
            (
                console.moment(each["fire_time"]),
                _local(each["local_time"]),
                console.moment(each["let_go_at"]),
            )
            for each in found["data"]
        ],
    )


app.command("edit")(_command(EditArguments, _edit))


@app.command("pause")
def pause(schedule: Name, *, note: Note = None, json: Json = False, api: Api = None) -> None:
    """Let nothing go until it is resumed; jobs under way go on."""
    with connection.connect(api) as client:
        found = client.schedules.pause(schedule, note=note)
    console.answer(found, f"{found['name']} is paused", json=json)


@app.command("resume")
def resume(schedule: Name, *, note: Note = None, json: Json = False, api: Api = None) -> None:
    """Go on with the next fire time; those that passed meanwhile are left out."""
    with connection.connect(api) as client:
        found = client.schedules.resume(schedule, note=note)
    console.answer(found, f"{found['name']} fires {_when(found)}", json=json)


@app.command("trigger")
def trigger(
    schedule: Name,
    *,
    overlap: Annotated[
        Overlap, typer.Option(help="What to do while a job of an earlier fire runs.")
    ] = Overlap.ALLOW,
    json: Json = False,
    idempotency_key: arguments.IdempotencyKey = None,
    api: Api = None,
) -> int:
    """Fire now, paused or not; exit code 1 if no job could be submitted."""
    with connection.connect(api) as client:
        fire = client.schedules.trigger(schedule, overlap=overlap, idempotency_key=idempotency_key)
    told = _submitted(fire) or f"{fire['state']}: {fire['reason']}"
    console.answer(fire, told, json=json)
    return FAILED if fire["state"] == FireState.FAILED else 0


@app.command("backfill")
def backfill(
    schedule: Name,
    *,
    since: Moment,
    until: Moment,
    at_most: Annotated[
        int, typer.Option(metavar="N", min=1, max=100, help="Fires with a job at a time.")
    ] = 1,
    json: Json = False,
    api: Api = None,
) -> None:
    """Fire for past times that have had no job, oldest first."""
    with connection.connect(api) as client:
        made = client.schedules.backfill(schedule, since=since, until=until, at_most=at_most)
    left = f"; {made['left_out']:,} had a job before" if made["left_out"] else ""
    console.answer(made, f"{made['fires']:,} fires, {at_most} at a time{left}", json=json)


@app.command("fires")
def fires(
    schedule: Name,
    *,
    state: Annotated[FireState | None, typer.Option(help="Only fires in this state.")] = None,
    limit: Limit = 20,
    json: Json = False,
    api: Api = None,
) -> None:
    """Its fires, the latest first: state, job, and why one has none."""
    with connection.connect(api) as client:
        found = Listing.first(client.schedules.fires(schedule, state=state), limit)
    tables.listing(found, FIRE_COLUMNS, _fire_row, json=json)


@app.command("versions")
def versions(schedule: Name, *, limit: Limit = 20, json: Json = False, api: Api = None) -> None:
    """What it was before each edit, newest first, and which key made it."""
    with connection.connect(api) as client:
        found = Listing.first(client.schedules.versions(schedule), limit)
    tables.listing(
        found,
        ("VERSION", Column("MADE", least=WHOLE), "BY KEY", Column("WHEN", cut=1)),
        lambda each: (
            each["version"],
            console.moment(each["made_at"]),
            each["made_by"],
            each["words"],
        ),
        json=json,
    )


@app.command("delete")
def delete(schedule: Name, *, json: Json = False, api: Api = None) -> None:
    """Delete a schedule; its jobs stay, those under way go on."""
    with connection.connect(api) as client:
        done = client.schedules.delete(schedule)
    console.answer(done, f"{schedule} is deleted", json=json)


def _spoken(jobs: schedule_options.Template | None) -> AbstractContextManager[None]:
    """What is refused of a member of a group names it."""
    return groups.members_named() if isinstance(jobs, dict) else nullcontext()


def _given(timing: Answer) -> Answer:
    return {name: value for name, value in timing.items() if value is not None}


def _when(schedule: Answer) -> str:
    following = schedule["next_fire_time"]
    then = f", next at {console.moment(following)} UTC" if following else ", but no fire is left"
    return f"{schedule['words']}{then if schedule['state'] != 'paused' else ', once resumed'}"


def _local(text: str) -> str:
    return console.moment(text) + text[19:]


def _row(schedule: Answer) -> tuple[Any, ...]:
    last = schedule["last_fire"] or {"fire_time": None, "state": None}
    return (
        schedule["name"],
        schedule["state"],
        schedule["words"],
        console.moment(schedule["next_fire_time"]),
        console.moment(last["fire_time"]),
        last["state"],
    )


def _fire_row(fire: Answer) -> tuple[Any, ...]:
    count = f" (and {fire['count'] - 1:,} more)" if fire["count"] > 1 else ""
    return (
        f"{console.moment(fire['fire_time'])}{count}",
        _local(fire["local_time"]),
        fire["state"],
        fire["origin"],
        _submitted(fire),
        fire["reason"] or _drift(fire),
    )


def _submitted(fire: Answer) -> str | None:
    """The group of a fire, or its job; ``None``: it has none."""
    group: str | None = fire.get("group")
    return group or ", ".join(job["id"] for job in fire["jobs"]) or None


def _drift(fire: Answer) -> str | None:
    """How a fire has drifted; ``None``: it has not."""
    drift = fire["drift"]
    return f"drifted: {drift['words']}" if drift and drift["drifted"] else None


def _template(jobs: schedule_options.Template) -> str:
    """What each fire submits, in a line."""
    if isinstance(jobs, dict):
        members = (f"{name} ({spec.get('kind', 'classify')})" for name, spec in jobs.items())
        return f"a group: {', '.join(members)}"
    spec = jobs[0]["spec"]
    return f"{spec.get('kind', 'classify')} {spec.get('name') or ''}".strip()


def _facts(schedule: Answer) -> list[tuple[str, Any]]:
    last, policy = schedule["last_fire"], schedule["policy"]
    return [
        ("schedule", schedule["name"]),
        ("id", schedule["id"]),
        ("state", schedule["state"]),
        ("note", schedule["note"]),
        ("fires", schedule["words"]),
        (
            "next",
            schedule["next_fire_time"] and f"{console.moment(schedule['next_fire_time'])} UTC",
        ),
        ("submits", _template(schedule["jobs"])),
        ("overlap", policy["overlap"]),
        ("catch-up", f"{policy['catch_up']['mode']} within {policy['catch_up']['window']}"),
        ("pauses", "on failure" if policy["pause_on_failure"] else None),
        ("fired", console.number(schedule["fired"])),
        ("running", schedule["running"] or None),
        ("buffered", schedule["buffered"] or None),
        ("last fire", last and f"{console.moment(last['fire_time'])} UTC: {last['state']}"),
        ("because", last and last["reason"]),
        ("version", f"{schedule['version']}, by key {schedule['edited_by']}"),
        ("created", console.moment(schedule["created_at"])),
    ]
