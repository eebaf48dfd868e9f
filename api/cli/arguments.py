"""Arguments and options that several commands have, each with its check."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from jobs import names
from jobs.models import references


def _named(pattern: str, words: str) -> Callable[[str], str]:
    """A reader of texts that match; ``words``: what they must be."""

    def text(given: str) -> str:
        if re.fullmatch(pattern, given) is None:
            raise ValueError(f"must be {words}, not {given[:60]!r}")
        return given

    return text


_JOB = _named(names.ID, "the id of a job, as `nightshift jobs list` shows it")
_GROUP = _named(names.ID, "the id of a group, as `nightshift groups list` shows it")
_FILE = _named(names.ID, "the id of a file, as `nightshift files list` shows it")
_MODEL = _named(references.REGISTERED.pattern, "name@version, name@alias or a name in the registry")
_NAME = _named(names.MODEL, names.IN_WORDS[f"^{names.MODEL}$"])
schedule = _named(
    names.SCHEDULE, "the name or the id of a schedule, as `nightshift schedules list` shows it"
)
endpoint = _named(names.ID, "the id of a webhook endpoint, as `nightshift webhooks list` shows it")
key = _named(names.ID, "the id of a key, as `nightshift keys list` shows it")
project = _named(names.ID, "the id of a project: letters, digits, '_' and '-'")
tag = _named(names.TAG, names.IN_WORDS[f"^{names.TAG}$"])
_ALIAS = _named(names.ALIAS, names.IN_WORDS[f"^{names.ALIAS}$"])
pool = _named(names.POOL, names.IN_WORDS[f"^{names.POOL}$"])
_CURVE = _named(r"[^\0-\x1f\x7f]{1,200}", "the name of a curve, such as loss")
_KEY = _named(r"[\x21-\x7e]{1,255}", "1 to 255 printable characters of ASCII without spaces")

MOST = 1_000_000_000
"""Entries of a listing; more would not fit any memory."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Follow = Annotated[bool, typer.Option("--follow", help="Go on until it has ended.")]
Watch = Annotated[bool | None, typer.Option("--watch/--no-watch", help="Default: on a terminal.")]
Force = Annotated[bool, typer.Option("--force", help="Write over what is at --out.")]
Limit = Annotated[int, typer.Option(metavar="N", min=1, max=MOST, help="Most entries.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, `job_...`.", parser=_JOB)]
GroupId = Annotated[
    str, typer.Argument(metavar="GROUP", help="A group's id, `group_...`.", parser=_GROUP)
]
JobOrGroupId = Annotated[
    str, typer.Argument(metavar="JOB", help="A job's id, `job_...`, or a group's.", parser=_JOB)
]
Pool = Annotated[str, typer.Argument(metavar="POOL", help="A pool's name.", parser=pool)]
FileId = Annotated[
    str, typer.Argument(metavar="FILE", help="A file's id, `file-...`.", parser=_FILE)
]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="name@version, name@alias, or name for the newest.", parser=_MODEL
    ),
]
ModelName = Annotated[str, typer.Argument(metavar="NAME", help="A model's name.", parser=_NAME)]
ProfileName = Annotated[
    str, typer.Argument(metavar="NAME", help="The name of a server.", parser=_NAME)
]
Alias = Annotated[str, typer.Argument(metavar="ALIAS", help="Such as champion.", parser=_ALIAS)]
Curve = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="One curve, such as loss. Default: the newest of each.", parser=_CURVE
    ),
]
IdempotencyKey = Annotated[
    str | None,
    typer.Option(
        "--idempotency-key",
        metavar="KEY",
        help="The same key with the same spec is the same job, however often the command runs.",
        parser=_KEY,
    ),
]
WithDependents = Annotated[
    bool, typer.Option("--with-dependents", help="Every job that depends on it as well.")
]
Out = Annotated[Path, typer.Option(help="Where to write it.")]


def is_key(text: str) -> bool:
    """Whether a text can be sent as a key in a header."""
    return re.fullmatch(r"[\x21-\x7e]+", text) is not None
