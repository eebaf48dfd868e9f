"""What one client can do to the others: ``python -m benchmarks.bad_clients [WORD ...]``.

One API process on a Postgres and a folder of its own, on loopback. For each attack (of those that
have one of the words in their names) the table has the median and the 95th percentile of the time
that requests and small uploads of another key take, idle and attacked in turns, how many of them
failed, and how busy the measuring client, the attackers and the server were, in percent of a core.
The attackers are a process of their own with the lowest priority: elsewhere they would not take
the server's CPU either. Seven minutes.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import quantiles

import httpx
import psutil

from api.stack import ports
from api.stack import postgres as postgres_server
from jobs import database
from tests.api.server import wire
from tests.api.server.installation import Installation, Tenant, new_tenant, start_installation
from tests.support.servers import Server

ROUNDS = 3
SECONDS = 6.0
"""Of each measurement, idle and attacked, in each round."""

SETTLING = 1.0
"""Seconds that an attack, or its end, takes effect before the next measurement."""

HALF_SENT, UPLOADS, STREAMS, VERIFICATIONS, GUESSES = 1100, 64, 300, 60, 50

PARTIES = ("client", "attackers", "server")

Attack = Callable[[Tenant], None]


@dataclass
class Sample:
    """Seconds of each request, and CPU seconds of everyone meanwhile."""

    requests: list[float] = field(default_factory=list)
    uploads: list[float] = field(default_factory=list)
    failed: int = 0
    wall: float = 0.0
    cpu: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTIES, 0.0))

    def row(self) -> str:
        """Its cells of the table."""
        shares = " / ".join(f"{100 * self.cpu[each] / self.wall:.0f}" for each in PARTIES)
        return f"{_row(self.requests)} | {_row(self.uploads)} | {self.failed} | {shares} |"


def main(words: list[str]) -> None:
    """Print the table."""
    parties = " / ".join(PARTIES)
    print(f"| attack | | request p50 | p95 | upload p50 | p95 | failed | CPU % of {parties} |")
    print(f"|{'---|' * 8}")
    chosen = [name for name in ATTACKS if not words or any(word in name for word in words)]
    with installation() as running, new_tenant(running) as victim:
        victim.submit()
        for name in chosen:
            idle, attacked = Sample(), Sample()
            with new_tenant(running) as attacker:
                for _ in range(ROUNDS):
                    measure(idle, victim, None)
                    with attacking(name, attacker) as pid:
                        time.sleep(SETTLING)
                        measure(attacked, victim, pid)
                    time.sleep(SETTLING)
            print(f"| {name} | idle | {idle.row()}\n| | attacked | {attacked.row()}", flush=True)


def measure(into: Sample, victim: Tenant, attackers: int | None) -> None:
    """Add the victim's requests of a while, each on a connection of its own."""
    body = (
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n{}\n\r\n--B--\r\n'
    )
    kind = "multipart/form-data; boundary=B"
    listing = wire.head("GET /v1/jobs", key=victim.key)
    upload = wire.with_body("POST /v1/files", body, key=victim.key, kind=kind)
    before, begun = _cpu(victim, attackers), time.monotonic()
    while time.monotonic() < begun + SECONDS:
        for kept, request in ((into.requests, listing), (into.uploads, upload)):
            sent = time.perf_counter()
            try:
                good = wire.ask(victim.installation, request).status == httpx.codes.OK
            except OSError:
                good = False
            kept.append(time.perf_counter() - sent)
            into.failed += not good
        time.sleep(0.02)
    into.wall += time.monotonic() - begun
    for party, seconds in _cpu(victim, attackers).items():
        into.cpu[party] += seconds - before[party]


@contextmanager
def attacking(name: str, attacker: Tenant) -> Iterator[int]:
    """The pid of a process that attacks; it is killed at the end."""
    ours, theirs = multiprocessing.Pipe()
    spawn = multiprocessing.get_context("spawn")
    where = attacker.installation.database_url, attacker.installation.port
    arguments = name, *where, attacker.key, theirs
    process = spawn.Process(target=attack, args=arguments, daemon=True)
    process.start()
    assert ours.recv() == "ready"
    yield process.pid or 0
    process.kill()
    process.join()


def attack(name: str, database_url: str, port: int, key: str, parent: Connection) -> None:
    """What the process of the attackers runs."""
    os.nice(19)
    target = Installation(database_url=database_url, home=Path("/"), port=port)
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=target.url, headers=headers, timeout=60) as http:
        ATTACKS[name](Tenant(installation=target, project="", key=key, http=http))
        parent.send("ready")
        threading.Event().wait()


def half_sent(attacker: Tenant) -> None:
    """Requests without a key whose head never ends, opened again as fast as they are closed."""
    for _ in range(HALF_SENT):
        _repeat(lambda: _hold(attacker, b"GET /v1/jobs HTTP/1.1\r\nHost: h\r\n"), pause=1)


def unfinished_uploads(attacker: Tenant) -> None:
    """Uploads whose body never ends."""
    for _ in range(UPLOADS):
        _repeat(lambda: _hold(attacker, wire.begun_upload(attacker.key)), pause=1)


def event_streams(attacker: Tenant) -> None:
    """Watchers of one job."""
    request = wire.head(f"GET /v1/jobs/{attacker.submit()}/events", key=attacker.key)
    for _ in range(STREAMS):
        _repeat(lambda: _hold(attacker, request), pause=1)


def event_streams_of_many_jobs(attacker: Tenant) -> None:
    """Watchers of as many jobs."""
    file = attacker.upload()
    for _ in range(STREAMS):
        job_id = attacker.submit(corpus={"file": file})
        request = wire.head(f"GET /v1/jobs/{job_id}/events", key=attacker.key)
        _repeat(lambda request=request: _hold(attacker, request), pause=1)  # type: ignore[misc]


def verifications(attacker: Tenant) -> None:
    """Recounts of a corpus of 200,000 rows."""
    job_id = attacker.submit(corpus={"file": attacker.upload(b'{"text": "one"}\n' * 200_000)})
    request = wire.head(
        f"GET /v1/jobs/{job_id}/verification", "Connection: close", key=attacker.key
    )
    for _ in range(VERIFICATIONS):
        _repeat(lambda: _hold(attacker, request), pause=0.5)


def wrong_keys(attacker: Tenant) -> None:
    """Keys that are tried one after the other."""
    request = wire.head("GET /v1/jobs", "Connection: close", key="ns-guessed")
    for _ in range(GUESSES):
        _repeat(lambda: _hold(attacker, request), pause=0)


def single_bytes(attacker: Tenant) -> None:
    """Uploads in chunks of one byte, as fast as they are taken."""
    fields = "Transfer-Encoding: chunked", "Content-Type: multipart/form-data; boundary=B"
    head = wire.head("POST /v1/files", *fields, key=attacker.key)
    begun = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    request = head + b"%x\r\n%b\r\n" % (len(begun), begun) + b"1\r\nx\r\n" * 500_000
    for _ in range(8):
        _repeat(lambda: _hold(attacker, request), pause=1)


def malformed(attacker: Tenant) -> None:
    """Requests that are no HTTP, and bodies that no model reads."""
    both_lengths = wire.head(
        "POST /v1/jobs", "Content-Length: 2", "Transfer-Encoding: chunked", key=attacker.key
    )
    deep = wire.with_body("POST /v1/jobs", b"[" * 100_000, key=attacker.key)
    nul = wire.head("GET /v1/models/a%00b", "Connection: close", key=attacker.key)
    for request in (b"\x16\x03\x01" + b"x" * 600, both_lengths, deep, nul):
        for _ in range(5):
            _repeat(lambda request=request: _hold(attacker, request), pause=0.01)  # type: ignore[misc]


ATTACKS: dict[str, Attack] = {
    "none": lambda _attacker: None,
    f"{HALF_SENT} half-sent requests without a key": half_sent,
    f"{UPLOADS} unfinished uploads of one key": unfinished_uploads,
    f"{STREAMS} event streams of one key": event_streams,
    f"{STREAMS} event streams of one key, of as many jobs": event_streams_of_many_jobs,
    f"{VERIFICATIONS} verifications of one key": verifications,
    f"{GUESSES} connections that try keys": wrong_keys,
    "8 uploads in chunks of one byte": single_bytes,
    "20 connections of malformed requests": malformed,
}


@contextmanager
def installation() -> Iterator[Installation]:
    """An API process on servers of its own."""
    home = Path(tempfile.mkdtemp(prefix="nightshift-bench-"))
    home.chmod(0o711)  # Postgres runs as another user when we are root
    log = home / "postgres.log"
    server = Server(*postgres_server.service(home, port=ports.choose(), log=log))
    server.start()
    try:
        postgres_server.ensure_database(server.url)
        database.migrate(server.url)
        (home / "api").mkdir()
        running = start_installation(server.url, home / "api")
        yield running
        running.stop()
    finally:
        server.stop()
        shutil.rmtree(home)


def _hold(attacker: Tenant, request: bytes) -> None:
    """Send, then read until the server ends it."""
    with wire.connected(attacker.installation, seconds=SECONDS) as connection:
        wire.send(connection, request)
        while connection.recv(2**16):
            pass


def _repeat(work: Callable[[], None], *, pause: float) -> None:
    """Do the work again and again in a thread, as long as the process lives."""

    def repeat() -> None:
        while True:
            try:
                work()
            except OSError:
                continue
            finally:
                time.sleep(pause)

    threading.Thread(target=repeat, daemon=True).start()


def _cpu(victim: Tenant, attackers: int | None) -> dict[str, float]:
    """CPU seconds so far of the parties, of the server's children too."""
    server = victim.installation.process
    assert server is not None
    return {
        "client": time.process_time(),
        "attackers": sum(psutil.Process(attackers).cpu_times()[:2]) if attackers else 0.0,
        "server": sum(
            sum(each.cpu_times()[:4])
            for each in (psutil.Process(server.pid), *psutil.Process(server.pid).children())
        ),
    }


def _row(seconds: list[float]) -> str:
    if len(seconds) < 2:
        return f"over {sum(seconds):.1f} s | "
    cuts = quantiles(seconds, n=20)
    return f"{cuts[9] * 1000:.0f} ms | {cuts[18] * 1000:.0f} ms"


if __name__ == "__main__":
    main(sys.argv[1:])
