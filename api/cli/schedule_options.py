"""Options of ``nightshift schedules create`` and ``edit``, made from the fields of a schedule."""

from __future__ import annotations

import contextvars
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import typer

from api.cli import captured, connection, groups, kind_commands, recipes, spec_options
from api.cli.failures import Failure
from api.cli.option_names import OptionNames
from api.cli.spec_options import OptionForm, SpecOption
from jobs import kinds
from jobs.schedules.definition import Definition

_DURATION = OptionForm(type=str, metavar="DURATION")
_TIME = OptionForm(type=str, metavar="TIME")

FORMS = {
    "timing.cron": OptionForm(names=("--cron",)),
    "timing.time_zone": OptionForm(names=("--time-zone", "--tz")),
    "timing.every": _DURATION,
    "timing.offset": _DURATION,
    "timing.jitter": _DURATION,
    "timing.start": _TIME,
    "timing.end": _TIME,
    "timing.except_days": OptionForm(names=("--except-day",)),
    "policy.catch_up.mode": OptionForm(names=("--catch-up",)),
    "policy.catch_up.window": OptionForm(
        names=("--catch-up-window",), type=str, metavar="DURATION"
    ),
    "policy.catch_up.limit": OptionForm(names=("--catch-up-limit",)),
    "policy.pause_on_failure": OptionForm(
        names=("--pause-on-failure/--no-pause-on-failure",),
    ),
    "jobs": OptionForm(hidden_by="--spec, --group or a command behind --"),
}

Template = list[dict[str, Any]] | dict[str, Any]
"""``jobs`` of a schedule: one spec in a list, or those of a group by name."""

OPTIONS = spec_options.of_spec(Definition, FORMS, overlay=True)
WORDS = OptionNames.of(OPTIONS)


def template(
    file: Path | None, group: Path | None, command: Sequence[str], *, api: str | None
) -> Template | None:
    """What each fire submits: of a file, or of a command; ``None``: nothing is given."""
    given = {"--spec": file, "--group": group, "a command behind --": tuple(command) or None}
    several = [name for name, value in given.items() if value is not None]
    if len(several) > 1:
        raise Failure(f"{' and '.join(several)} both say what is submitted: give one of them")
    if group is not None:
        return _members(group, api=api)
    if command:
        return [{"spec": _made_by(command, api=api)}]
    return None if file is None else [{"spec": recipes.whole(file)}]


def change(given: dict[str, Any], unset: Iterable[str]) -> dict[str, Any]:
    """What is given as a merge patch of a schedule; ``unset``: options that get their default."""
    fields = spec_options.gathered(OPTIONS, given)
    timing = fields.get("timing", {})
    if "every" in timing:
        fields["timing"] = {"cron": None, **timing}
    elif "cron" in timing:
        fields["timing"] = {"every": None, "offset": None, **timing}
    for name in unset:
        option = _option(name)
        *above, last = option.path
        place = fields
        for step in above:
            place = place.setdefault(step, {})
        place[last] = None
    return fields


def _members(file: Path, *, api: str | None) -> dict[str, Any]:
    """The specs of a file as ``groups create`` takes it, by name; local files are uploaded."""
    written = recipes.whole(file)
    jobs = written.get("jobs")
    if not isinstance(jobs, dict) or written.keys() - {"name", "jobs"}:
        raise Failure(
            f"{file} must hold the `jobs` of a group by name, and nothing else but its `name`: a "
            "schedule submits no sweep"
        )
    with connection.connect(api) as client:
        found: dict[str, Any] = groups.uploaded(client, jobs, reuse=False)
    return found


def _option(name: str) -> SpecOption:
    for option in OPTIONS:
        if option.name == f"--{name.removeprefix('--')}":
            return option
    known = ", ".join(option.name.removeprefix("--") for option in OPTIONS)
    raise Failure(f"--unset must be one of {known}, not {name[:60]!r}")


def _made_by(command: Sequence[str], *, api: str | None) -> dict[str, Any]:
    """The spec that a command of a kind would submit; its local files are uploaded."""
    if command[0] not in kinds.KINDS:
        raise Failure(
            f"behind -- stands what each fire submits, one of {', '.join(sorted(kinds.KINDS))}, "
            f"not {command[0][:60]!r}"
        )
    before = connection.before.get() or connection.Before()
    server = connection.Before(api=api or before.api, profile=before.profile)
    with captured.specs() as found:
        contextvars.copy_context().run(_run, command, server)
    if len(found) != 1:
        raise Failure("the command behind -- makes no job")
    return found[0]


def _run(command: Sequence[str], server: connection.Before) -> None:
    """Run the command of a kind in a context of its own, for it sets which server it talks to."""
    connection.before.set(server)
    app = typer.Typer(context_settings=kind_commands.CONTEXT, pretty_exceptions_enable=False)
    kind_commands.add_to(app)
    app(list(command), prog_name="nightshift", standalone_mode=False)
