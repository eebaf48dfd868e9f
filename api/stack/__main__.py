"""``python -m api.stack up|stop|status --home DIR``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from api.stack import up
from jobs import command_line, settings
from jobs.errors import NightshiftError

app = command_line.app(up.__doc__)

Home = Annotated[Path | None, typer.Option(help="The state folder. Default: ~/.nightshift.")]
Allow = Annotated[list[Path] | None, typer.Option(help="A folder that jobs may read.")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    try:
        return command_line.run(app, arguments, name="python -m api.stack")
    except NightshiftError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1


@app.command("up")
def run(home: Home = None, allow: Allow = None) -> int:
    """Start everything and stay until Ctrl-C."""
    return up.run(_folder(home), allow=allow or [])


@app.command("stop")
def stop(home: Home = None) -> None:
    """Stop the stack of a state folder."""
    sys.stdout.write("stopped\n" if up.stop(_folder(home), report=_say) else "not running\n")


@app.command("status")
def status(home: Home = None) -> int:
    """What runs; exit code 1 if nothing does."""
    found = up.info(_folder(home))
    if found is None:
        sys.stdout.write("not running\n")
        return 1
    sys.stdout.write(f"running, pid {found.pid}, API {found.api_url}\n")
    for service in found.services:
        sys.stdout.write(f"{service.name:<9} pid {service.pid:<8} {service.log}\n")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _folder(home: Path | None) -> Path:
    return (home or settings.state_home()).expanduser().resolve()


if __name__ == "__main__":
    sys.exit(main())
