"""``python -m api.stack up|stop|status --home DIR``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from api.stack import up
from jobs import settings
from jobs.errors import NightshiftError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m api.stack", description=up.__doc__)
    parser.add_argument("command", choices=["up", "stop", "status"])
    parser.add_argument("--home", type=Path, default=settings.state_home())
    parser.add_argument("--allow", type=Path, action="append", default=[])
    options = parser.parse_args(arguments)
    home: Path = options.home.expanduser().resolve()
    try:
        if options.command == "up":
            return up.run(home, allow=options.allow)
        return {"stop": _stop, "status": _status}[options.command](home)
    except NightshiftError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1


def _stop(home: Path) -> int:
    sys.stdout.write("stopped\n" if up.stop(home, report=_say) else "not running\n")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _status(home: Path) -> int:
    found = up.info(home)
    if found is None:
        sys.stdout.write("not running\n")
        return 1
    sys.stdout.write(f"running, pid {found.pid}, API {found.api_url}\n")
    for service in found.services:
        sys.stdout.write(f"{service.name:<9} pid {service.pid:<8} {service.log}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
