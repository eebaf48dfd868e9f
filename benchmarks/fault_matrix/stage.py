"""The stage: real servers and processes, a link between each two, and a supervisor.

Every process ends with this one, however it ends: ``jobs.parent_death``, and for those that are
stopped at that moment the waker of ``stopped``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
import redis
import sqlalchemy as sa

from api.stack import ports
from api.stack import postgres as postgres_server
from api.stack import valkey as valkey_server
from api.stack.service import Service
from benchmarks.fault_matrix.cells import SETTINGS, Work
from benchmarks.fault_matrix.links import HOST, Link
from jobs import database
from jobs.worker_names import ProcessName, WorkerName
from tests.support import seaweed
from tests.support.installation import Installation, Process
from tests.support.seaweed import BUCKET, S3
from tests.support.servers import Server
from tests.support.silence import silent_server
from tests.support.tiny_models import tiny_classifier

TICK = 0.05
SETTLE_SECONDS = 90.0
CONTROLS = 2
ROLES = {
    Work.BULK: ("control-1", "control-2", "planner", "worker"),
    Work.FINETUNE: ("control-1", "control-2", "planner", "alpha", "beta"),
}
"""The processes of an installation for each work."""


class NotInTime(Exception):
    """What the driver waited for did not come."""


@dataclass
class Unit:
    """One process with its links; it is started again under the same name."""

    name: str
    links: dict[str, Link]
    start: Callable[[], Process]
    process: Process = field(init=False)
    started_at: float = field(init=False)  # by the wall clock, as in the ledger
    is_held: bool = False  # by a fault: it is not started again

    def restart(self) -> None:
        """Start it, or start it again."""
        self.started_at = time.time()
        self.process = self.start()

    def pids(self) -> list[int]:
        """Its processes, parents first; a training program is none of them: it has a session."""
        tree = [self.process.pid, *_descendants(self.process.pid)]
        return [pid for pid in tree if _session(pid) == self.process.pid]


class Stage:
    """An installation for one work."""

    def __init__(self, work: Work, home: Path) -> None:
        self.work = work
        self._home = home
        self.servers = _servers(home)
        self.ports = {name: _port(server.url) for name, server in self.servers.items()}
        self.installation = self._installation()
        self.units = {name: self._unit(name) for name in ROLES[work]}
        for unit in self.units.values():
            unit.restart()

    @property
    def database_url(self) -> str:
        """The ledger, on no link."""
        return self.servers["postgres"].url

    def links(self, server: str) -> list[Link]:
        """The links of all processes to a server."""
        return [unit.links[server] for unit in self.units.values()]

    def leader(self) -> Unit:
        """The control process that leads."""
        (owner,) = self.ask("SELECT leader FROM control_status")[0]
        pid = ProcessName.read(owner).pid
        return next(unit for unit in self.units.values() if unit.process.pid == pid)

    def wait(self, fact: Callable[[], object], *, seconds: float, what: str) -> None:
        """Return once the fact is true; meanwhile what dies is started again."""
        end = time.monotonic() + seconds
        while not fact():
            if time.monotonic() > end:
                raise NotInTime(f"{what}: not within {seconds:.0f} s")
            self.supervise()
            time.sleep(TICK)

    def pass_time(self, seconds: float) -> None:
        """Let this many seconds go by."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.supervise()
            time.sleep(min(TICK, left))

    def supervise(self) -> None:
        """Start every process again that has ended, as a supervisor would."""
        for unit in self.units.values():
            if not (unit.is_held or unit.process.alive):
                unit.restart()

    def settle(self) -> None:
        """Wait until every process is there, connected and idle."""
        self.wait(self._is_settled, seconds=SETTLE_SECONDS, what="every process is there")

    def ask(self, question: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of the ledger."""
        with psycopg.connect(self.database_url, autocommit=True, connect_timeout=5) as ledger:
            return ledger.execute(question.encode(), values).fetchall()

    def close(self) -> None:
        """End everything."""
        for unit in self.units.values():
            unit.is_held = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(unit.process.pid, signal.SIGKILL)
            unit.process.stop()
            for link in unit.links.values():
                link.close()
        self.installation.sessions.kw["bind"].dispose()
        for server in self.servers.values():
            server.stop()

    def _is_settled(self) -> bool:
        turned = "SELECT 1 FROM control_status WHERE turned_at > now() - interval '1 s'"
        return (
            bool(self.ask(turned))
            and all(self._is_there(unit) for unit in self.units.values())
            and self._consumers() >= len(self.units) - CONTROLS
        )

    def _is_there(self, unit: Unit) -> bool:
        if unit.name.startswith("control"):
            return unit.process.alive and unit.links["postgres"].is_used
        recent = "beat_at > now() - interval '7 s'"
        if unit.name in {"planner", "worker"}:
            found = self.ask(f"SELECT name FROM workers WHERE {recent}")
            names = [WorkerName.read(name) for (name,) in found]
            return any(name is not None and name.pid == unit.process.pid for name in names)
        return bool(
            self.ask(
                f"SELECT 1 FROM hosts WHERE {recent} AND name = %s AND run_id IS NULL "
                "AND NOT draining AND started_at > to_timestamp(%s)",
                unit.name,
                unit.started_at,
            )
        )

    def _consumers(self) -> int:
        """Connections that wait for messages at this moment."""
        with redis.Redis.from_url(self.servers["valkey"].url, socket_timeout=5) as client:
            return sum(each["cmd"] == "brpop" for each in client.client_list())

    def _installation(self) -> Installation:
        os.environ |= _credentials(self.ports["store"])
        url = self.database_url
        postgres_server.ensure_database(url)
        database.migrate(url)
        return Installation(
            database_url=url,
            redis_url=self.servers["valkey"].url,
            home=self._home / "installation",
            model=tiny_classifier(self._home / "model"),
            object_store_url=f"s3://{BUCKET}/matrix",
            artefact_cache=str(self._home / "artefacts"),
            **SETTINGS,
        )

    def _unit(self, name: str) -> Unit:
        links = {server: Link(port) for server, port in self.ports.items()}
        env = {
            "NIGHTSHIFT_DATABASE_URL": _through(links["postgres"], self.database_url),
            "NIGHTSHIFT_REDIS_URL": _through(links["valkey"], self.servers["valkey"].url),
            **_credentials(links["store"].port),
        }
        role = {"worker": "pool"}.get(name, name.partition("-")[0])
        if role in {"alpha", "beta"}:
            return Unit(name, links, lambda: self.installation.start_host(name, **env))
        return Unit(name, links, lambda: self.installation.start_role(role, **env))


@contextlib.contextmanager
def opened(work: Work) -> Iterator[Stage]:
    """A stage in a new folder, which is removed at the end."""
    home = Path(tempfile.mkdtemp(prefix="nightshift-matrix-"))
    home.chmod(0o711)  # Postgres runs as another user when we are root
    try:
        stage = Stage(work, home)
        try:
            yield stage
        finally:
            stage.close()
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def stopped(pids: Sequence[int]) -> Iterator[None]:
    """SIGSTOP to these processes for the block, then SIGCONT; also if this process dies."""
    wake = 'read -r _; kill -CONT "$@" 2>/dev/null'
    waker = subprocess.Popen(
        ["/bin/sh", "-c", wake, "waker", *map(str, pids)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        waker.communicate()


@contextlib.contextmanager
def silent(server: Server, port: int) -> Iterator[None]:
    """Kill the server; for the block its address takes connections and answers nothing."""
    server.kill()
    try:
        with silent_server(port):
            yield
    finally:
        server.start()


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    return [pid, *_descendants(pid)]


def _servers(home: Path) -> dict[str, Server]:
    postgres = Server(
        *postgres_server.service(home, port=ports.choose(), log=home / "postgres.log")
    )
    postgres.start()
    valkey = Server(*valkey_server.service(home, port=ports.choose(), log=home / "valkey.log"))
    valkey.start()
    return {"postgres": postgres, "valkey": valkey, "store": _store(home)}


def _store(home: Path) -> Server:
    folder = home / "seaweed"
    folder.mkdir()
    command, chosen = seaweed.command(folder)
    s3 = S3(port=chosen["s3"], filer_port=chosen["filer"], pid=0)
    service = Service(
        name="seaweed",
        command=("/bin/sh", "-c", 'cd "$0" && exec "$@"', str(folder), *command),
        log=home / "seaweed.log",
        environment=_credentials(s3.port),
        probe=lambda: seaweed.has_bucket(s3),
    )
    server = Server(service, f"http://{HOST}:{s3.port}/")
    server.start(seconds=60)
    return server


def _credentials(port: int) -> dict[str, str]:
    return S3(port=port, filer_port=0, pid=0).environment


def _through(link: Link, url: str) -> str:
    return sa.make_url(url).set(port=link.port).render_as_string(hide_password=False)


def _port(url: str) -> int:
    port = sa.make_url(url).port
    assert port is not None
    return port


def _descendants(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
