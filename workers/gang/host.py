"""What a training host presents to control, and its record in the ledger."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil
import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from jobs import temporary
from jobs.ledger import hosts
from jobs.ledger.hosts import HostDescription
from jobs.settings import Settings
from workers import devices
from workers.context import Context
from workers.gang import program

log = structlog.get_logger()

REPLACED = 74
"""Exit status of an agent whose host name another agent has taken over."""

LOCAL_ADDRESS = "127.0.0.1"
POSTGRES = 5432


def name(settings: Settings) -> str:
    """The host's name: the setting, or the machine's."""
    return settings.host_name or platform.node()


def accelerators() -> int:
    """Number of accelerators that training may use here; 0: it runs on the CPU."""
    return len(devices.here())


def processes(settings: Settings) -> int:
    """Training processes on this host: the setting, else one per accelerator, else one."""
    return settings.host_processes or accelerators() or 1


def folder(context: Context) -> Path:
    """The folder of this host's work folders; no other installation has the same."""
    settings = context.settings
    above = Path(settings.host_folder) if settings.host_folder else temporary.folder()
    return above / f"{context.installation}-{name(settings)}"


def present(settings: Settings) -> HostDescription:
    """The host's record as an agent writes it at its start."""
    accelerator_ids = devices.here()
    shares = settings.host_shares_pool or None
    return HostDescription(
        name=name(settings),
        incarnation=secrets.token_hex(8),
        pool=settings.host_pool,
        address=settings.host_address or reachable_at(settings),
        devices=len(accelerator_ids),
        device=f"cuda:{','.join(accelerator_ids)}" if accelerator_ids else "cpu",
        memory_bytes=psutil.virtual_memory().total,
        shares_pool=shares,
        sharing=settings.host_sharing if shares else None,
    )


def reachable_at(settings: Settings) -> str:
    """The address of this machine on the route to Postgres, which every other host reaches too."""
    url = sa.make_url(settings.database_url)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # UDP: nothing is sent
        try:
            probe.connect((url.host or LOCAL_ADDRESS, url.port or POSTGRES))
        except OSError:
            return LOCAL_ADDRESS
        return str(probe.getsockname()[0])


def clean(host: HostDescription, *, context: Context) -> None:
    """End the programs of an earlier agent of this host and remove their work folders.

    Those of another installation on this machine stay, whatever the names of its hosts.
    """
    ended = program.end_leftovers(
        installation=context.installation, host=host.name, incarnation=host.incarnation
    )
    if ended:
        log.warning("programs of an earlier agent were ended", processes=ended)
    shutil.rmtree(folder(context), ignore_errors=True)


@dataclass(frozen=True)
class HostRecord:
    """The host in the ledger; see ``workers.heartbeat``."""

    host: HostDescription

    def arrive(self, session: Session) -> None:
        """Record the host; takes the name over from an earlier agent."""
        hosts.arrive(session, self.host)

    def beat(self, session: Session) -> None:
        """Renew the record; an agent whose name another one has taken over ends itself."""
        if not hosts.beat(session, self.host):
            log.error("another agent was started under this host's name; ending")
            os._exit(REPLACED)

    def drain(self, session: Session) -> None:
        """Take no more ranks; a running rank saves a checkpoint and stops."""
        hosts.drain(session, name=self.host.name, incarnation=self.host.incarnation)

    def beat_draining(self, session: Session) -> None:
        """Renew the record: the last rank is still here."""
        self.beat(session)

    def leave(self, session: Session) -> None:
        """Drop the record."""
        hosts.leave(session, name=self.host.name, incarnation=self.host.incarnation)
