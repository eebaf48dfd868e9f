"""``nightshift up``, ``down``, ``status``: the whole installation on this machine."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import connection, console, tables
from api.cli.arguments import Json
from api.cli.failures import FAILED, Failure
from api.cli.tables import Column
from jobs import distribution

Home = Annotated[
    Path | None,
    typer.Option(envvar="NIGHTSHIFT_HOME", help="The state folder. Default: ~/.nightshift."),
]
Allow = Annotated[
    list[Path] | None,
    typer.Option(
        envvar="NIGHTSHIFT_ALLOW",
        metavar="FOLDER",
        help="A folder whose files jobs may read as corpora and load as models; may be given "
        "several times. Default: uploaded files and models of the hub only.",
    ),
]


def up(home: Home = None, allow: Allow = None) -> int:
    """Start everything on this machine and stay until Ctrl-C; a second one ends it at once."""
    return int(stack().run(home or connection.home(), allow=allow or ()))


def down(
    *,
    now: Annotated[
        bool,
        typer.Option(
            "--now",
            help="End at once: training loses the steps since its last checkpoint, "
            "and chunks under way are computed again.",
        ),
    ] = False,
    home: Home = None,
) -> None:
    """Stop the stack of a state folder, once training has stored its checkpoint."""
    began = time.monotonic()
    stopped = stack().stop(home or connection.home(), now=now, report=console.note)
    took = time.monotonic() - began
    console.line(f"stopped after {took:.1f} s" if stopped else "nothing was running")


def status(*, home: Home = None, json: Json = False) -> int:
    """What runs on a state folder; exit code 1 if nothing does."""
    found = stack().info(home or connection.home())
    if found is None:
        raise Failure("nothing is running; start it with `nightshift up`", code=FAILED)
    services = [
        {"name": service.name, "pid": service.pid, "address": service.address, "log": service.log}
        for service in found.services
    ]
    if json:
        console.as_json({"api_url": found.api_url, "home": str(found.home), "services": services})
    else:
        console.line(f"running, pid {found.pid}, API {found.api_url}")
        tables.table(
            ("SERVICE", "PID", Column("ADDRESS", cut=1), Column("LOG", cut=2)),
            [tuple(s.values()) for s in services],
        )
    return 0


def stack(module: str = "up") -> Any:
    """A module of the embedded stack, which only an installation with its extra has."""
    try:
        return importlib.import_module(f"api.stack.{module}")
    except ImportError as error:
        raise Failure(
            f"this needs the embedded servers ({error.name} is missing): "
            f"{distribution.with_extra('embedded')}"
        ) from error
