"""The health check of a container: ``healthy.py control | worker | host`` exits with 0 or 1.

``control``: a control process has completed a turn lately; a standby is healthy as well.
``worker``: the worker or planner of this container has sent a heartbeat lately; ``host``: its
training host. Without Postgres no container is healthy.
"""  # noqa: INP001 - a program beside the packages, not one of them

from __future__ import annotations

import platform
import sys
from enum import StrEnum

import sqlalchemy as sa
import typer
from sqlalchemy.orm import Session

from jobs import database, settings, temporary
from jobs.decisions.waiting_reason import CONTROL_SILENCE
from jobs.lookups import clock, predicates
from jobs.queries import capacity, hosts


class Role(StrEnum):
    """What a container runs."""

    CONTROL = "control"
    WORKER = "worker"
    HOST = "host"


app = typer.Typer(help=__doc__, add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(role: Role) -> None:
    """Exit with 0 when healthy; otherwise with 1, and the reason on standard output."""
    engine = database.connect(settings.get().database_url, pool_size=1, name="nightshift-health")
    try:
        with database.sessions(engine).begin() as session:
            healthy = _LOOKS[role](session)
    except sa.exc.SQLAlchemyError as error:
        sys.stdout.write(f"Postgres does not answer: {error}\n")
        raise typer.Exit(1) from None
    sys.stdout.write(f"{role} {'is well' if healthy else 'has been silent'}\n")
    raise typer.Exit(0 if healthy else 1)


def _control(session: Session) -> bool:
    turned_at = capacity.look(session).control_turned_at
    return turned_at is not None and clock.now(session) - turned_at < CONTROL_SILENCE


def _worker(session: Session) -> bool:
    """By its name, which other containers with the same host name do not have."""
    file = temporary.worker_file()
    name, now = file.read_text() if file.exists() else None, clock.now(session)
    return any(
        worker.name == name and now - worker.beat_at < predicates.SILENCE
        for worker in capacity.workers(session)
    )


def _host(session: Session) -> bool:
    host = hosts.get(session, settings.get().host_name or platform.node())
    return host is not None and clock.now(session) - host.beat_at < predicates.SILENCE


_LOOKS = {Role.CONTROL: _control, Role.WORKER: _worker, Role.HOST: _host}


if __name__ == "__main__":
    app()
