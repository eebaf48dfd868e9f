"""``nightshift retention``: how long things are kept; and the same of one job, under ``jobs``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from api.cli import connection, console, tables
from api.cli.arguments import JobId, Json
from api.cli.failures import Failure
from jobs import retention as policies
from jobs.retention import JobPeriods, Piece, Retention

app = typer.Typer(help="How long things are kept.")

Answer = dict[str, Any]

DEFAULT = "default"
"""The period of the layer before: what removes one that was set."""


def _checked(given: str) -> str:
    """A period as the API takes it."""
    if given == DEFAULT:
        return given
    try:
        read = JobPeriods.model_validate({"jobs": given}).jobs
    except ValueError:
        raise ValueError(
            f"must be a duration such as 12h or 30d, `{policies.WORD}` or `{DEFAULT}`, "
            f"not {given[:60]!r}"
        ) from None
    assert read is not None
    return policies.written(read)


def _options(of: type[JobPeriods]) -> list[inspect.Parameter]:
    """An option for each period of a policy."""
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                str | None,
                typer.Option(metavar="PERIOD", help=field.description, parser=_checked),
            ],
        )
        for name, field in of.model_fields.items()
        if name in Retention.model_fields
    ]


def _with_periods(of: type[JobPeriods], run: Callable[..., None]) -> Callable[..., None]:
    """A command with an option for each period, which it is given as ``periods``."""
    names = {name for name in of.model_fields if name in Retention.model_fields}

    def command(**given: Any) -> None:
        periods = {name: given.pop(name) for name in names & given.keys()}
        run(periods={name: each for name, each in periods.items() if each is not None}, **given)

    own = inspect.signature(run, eval_str=True).parameters.values()
    rest = [each for each in own if each.name != "periods"]
    positional = [each for each in rest if each.kind is not inspect.Parameter.KEYWORD_ONLY]
    others = [each for each in rest if each.kind is inspect.Parameter.KEYWORD_ONLY]
    command.__doc__ = run.__doc__
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*positional, *_options(of), *others]
    )
    return command


@app.command("show")
def show(*, json: Json = False, api: connection.Api = None) -> None:
    """How long things of the project are kept."""
    with connection.connect(api) as client:
        found = client.retention.get()
    _show(found, json=json)


def _set(*, periods: Mapping[str, str], json: Json = False, api: connection.Api = None) -> None:
    """Change how long things of the project are kept; what is not given stays as it was."""
    if not periods:
        raise Failure("nothing is changed: give a period, such as --jobs 90d")
    with connection.connect(api) as client:
        own = _changed(client.retention.get()["project"], periods)
        found = client.retention.set(own)
    _show(found, json=json)


app.command("set")(_with_periods(Retention, _set))


def keep(
    job_id: JobId,
    *,
    off: Annotated[bool, typer.Option("--off", help="Keep it no longer.")] = False,
    json: Json = False,
    api: connection.Api = None,
) -> None:
    """Keep everything of a job, whatever the retention of its project is."""
    with connection.connect(api) as client:
        found = client.retention.keep(job_id, keep=not off)
    words = f"{job_id} is kept" if found["keep"] else f"{job_id} is kept as its project says"
    console.answer(found, words, json=json)


def _of_job(
    job_id: JobId,
    *,
    periods: Mapping[str, str],
    json: Json = False,
    api: connection.Api = None,
) -> None:
    """What of a job goes when, and what is gone; with periods, changes those of this job alone."""
    with connection.connect(api) as client:
        found = client.retention.of_job(job_id)
        if periods:
            own = _changed(found["own"], periods)
            found = client.retention.set_job(job_id, own, keep=found["keep"])
    if json:
        console.as_json(found)
        return
    when = {each["piece"]: _when(each, "folds", "goes") for each in found["goes"]}
    when |= {each["piece"]: _when(each, "folded", "went") for each in found["removed"]}
    if found["keep"]:
        console.note(f"{job_id} is kept: nothing of it goes")
    tables.table(
        ("PIECE", "PERIOD", "WHEN"),
        [(name, period, when.get(name)) for name, period in found["effective"].items()],
    )


def _when(piece: Mapping[str, str], of_chunks: str, of_others: str) -> str:
    word = of_chunks if piece["piece"] == Piece.CHUNKS else of_others
    return f"{word} {console.moment(piece['at'])}"


of_job = _with_periods(JobPeriods, _of_job)


def _changed(own: Mapping[str, str], periods: Mapping[str, str]) -> dict[str, str]:
    merged = {**own, **periods}
    return {name: period for name, period in merged.items() if period != DEFAULT}


def _show(found: Answer, *, json: bool) -> None:
    if json:
        console.as_json(found)
        return
    own = found["project"]
    tables.table(
        ("WHAT", "PERIOD", "SET BY"),
        [
            (name, period, "the project" if name in own else "the installation")
            for name, period in found["effective"].items()
        ],
    )
