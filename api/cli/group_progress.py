"""A group on a terminal: one bar for all of its jobs, and a line for each that ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from api.cli import console, tables
from api.cli.tables import Column
from api.client import FINAL, Client

Group = dict[str, Any]
Member = Mapping[str, Any]

MEMBERS = (
    Column("MEMBER"),
    Column("JOB"),
    Column("STATE"),
    Column("KIND", cut=2),
    Column("DONE", cut=3),
    Column("MODEL", cut=4),
    Column("WHY", cut=1, least=16),
)


def watch(client: Client, group_id: str) -> Group:
    """Show a group until all of its jobs have ended; the group."""
    terminal = Console(stderr=True)
    show = _live if terminal.is_terminal else _plain
    return show(client, group_id, terminal)


def summary(group: Group) -> None:
    """The members, and what is done of all together."""
    tables.table(MEMBERS, [row(member) for member in group["members"]])
    console.line(f"{group['id']} is {group['state']}: {counts(group['progress'])}")


def row(member: Member) -> tuple[Any, ...]:
    """A member as a row of a table."""
    return (
        member["member"],
        member["job"],
        member["state"],
        member["kind"],
        _done(member),
        member["model_pinned"] or member["model"],
        _why(member),
    )


def counts(progress: Mapping[str, Any]) -> str:
    """What is done, in numbers."""
    parts = [f"{progress['ended']}/{progress['jobs']} jobs ended"]
    for unit in ("rows", "steps"):
        amount = progress[unit]
        if amount["done"] or amount["total"]:
            parts.append(_amount(amount, unit))
    if progress["eta_seconds"] is not None:
        parts.append(f"eta {console.duration(progress['eta_seconds'])}")
    return ", ".join(parts)


def _live(client: Client, group_id: str, terminal: Console) -> Group:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[counts]}"),
    )
    group: Group = {}
    with Progress(*columns, console=terminal, transient=True) as bars:
        task = bars.add_task(group_id, total=1.0, counts="")
        for last, group in _looks(client, group_id):
            for line in _news(last, group, states=FINAL):
                bars.console.print(line, markup=False, highlight=False)
            bars.update(
                task,
                description=escape(str(group["name"] or group_id)),
                completed=group["progress"]["share"],
                counts=f"{group['progress']['share']:.0%}  {counts(group['progress'])}",
            )
    return group


def _plain(client: Client, group_id: str, _: Console) -> Group:
    """One line for each change of a member's state; for logs."""
    group: Group = {}
    for last, group in _looks(client, group_id):
        for line in _news(last, group, states=None):
            console.note(f"{group_id} {group['progress']['share']:.0%}  {line}")
    return group


def _looks(client: Client, group_id: str) -> Iterator[tuple[Group, Group]]:
    """The group each second, with how it was before."""
    last: Group = {"members": []}
    for group in client.groups.watch(group_id):
        yield last, group
        last = group


def _news(last: Group, group: Group, *, states: frozenset[str] | None) -> Iterator[str]:
    """Members whose state is another one now; ``states``: only if it is one of these."""
    before = {each["job"]: each["state"] for each in last["members"]}
    for member in group["members"]:
        state = member["state"]
        if before.get(member["job"]) == state or (states is not None and state not in states):
            continue
        why = _why(member)
        yield f"{member['member']} {state}" + (f": {why}" if why else "")


def _why(member: Member) -> str | None:
    """Why it ended without success, else why it waits."""
    error = member["error"]
    found: str | None = member.get("skipped") or member["waiting_reason"]
    return f"{error['message']} ({error['code']})" if error else found


def _done(member: Member) -> str:
    return next((_amount(member[unit], unit) for unit in ("rows", "steps") if member[unit]), "-")


def _amount(amount: Mapping[str, Any], unit: str) -> str:
    return f"{console.number(amount['done'])}/{console.number(amount['total'])} {unit}"
