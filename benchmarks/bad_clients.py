"""What one client can do to the others: ``python -m benchmarks.bad_clients``.

One API process on a Postgres and a folder of its own, on loopback. For each attack the table has
the median and the 95th percentile of the time that requests and small uploads of another key take,
and how many of them failed, beside the same without an attack. Three minutes.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import quantiles

import httpx

from api.stack import ports
from api.stack import postgres as postgres_server
from jobs import database
from tests.api.server import wire
from tests.api.server.installation import Installation, Tenant, new_tenant, start_installation
from tests.support.servers import Server

SECONDS = 12.0
"""Of each measurement."""

HALF_SENT, UPLOADS, STREAMS, VERIFICATIONS, GUESSES = 1100, 64, 300, 60, 50

Attack = Callable[[Tenant, ExitStack], None]


def main() -> None:
    """Print the table."""
    with installation() as running, new_tenant(running) as victim:
        victim.submit()
        print(f"| attack | request p50 | p95 | upload p50 | p95 | failed |\n|{'---|' * 6}")
        for name, attack in ATTACKS.items():
            with new_tenant(running) as attacker, ExitStack() as held:
                attack(attacker, held)
                report(name, victim)
            time.sleep(2)


def report(name: str, victim: Tenant) -> None:
    """Measure the victim's requests for a while and print them."""
    requests: list[float] = []
    uploads: list[float] = []
    failed = 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        for kept, send in ((requests, _listing), (uploads, _upload)):
            begun = time.perf_counter()
            try:
                with httpx.Client(headers=victim.http.headers, timeout=10) as fresh:
                    good = send(fresh, victim.installation.url).is_success
            except httpx.TransportError:
                good = False
            kept.append(time.perf_counter() - begun)
            failed += not good
        time.sleep(0.02)
    print(f"| {name} | {_row(requests)} | {_row(uploads)} | {failed} |", flush=True)


def half_sent(attacker: Tenant, held: ExitStack) -> None:
    """Requests without a key whose head never ends, opened again as fast as they are closed."""
    for _ in range(HALF_SENT):
        _background(held, lambda: _hold(attacker, b"GET /v1/jobs HTTP/1.1\r\nHost: h\r\n"), pause=1)


def unfinished_uploads(attacker: Tenant, held: ExitStack) -> None:
    """Uploads whose body never ends."""
    for _ in range(UPLOADS):
        _background(held, lambda: _hold(attacker, wire.begun_upload(attacker.key)), pause=1)


def event_streams(attacker: Tenant, held: ExitStack) -> None:
    """Watchers of one job."""
    request = wire.head(f"GET /v1/jobs/{attacker.submit()}/events", key=attacker.key)
    for _ in range(STREAMS):
        _background(held, lambda: _hold(attacker, request), pause=1)


def verifications(attacker: Tenant, held: ExitStack) -> None:
    """Recounts of a corpus of 200,000 rows."""
    job_id = attacker.submit(corpus={"file": attacker.upload(b'{"text": "one"}\n' * 200_000)})
    request = wire.head(
        f"GET /v1/jobs/{job_id}/verification", "Connection: close", key=attacker.key
    )
    for _ in range(VERIFICATIONS):
        _background(held, lambda: _hold(attacker, request), pause=0.5)


def wrong_keys(attacker: Tenant, held: ExitStack) -> None:
    """Keys that are tried one after the other."""
    request = wire.head("GET /v1/jobs", "Connection: close", key="ns-guessed")
    for _ in range(GUESSES):
        _background(held, lambda: _hold(attacker, request), pause=0)


def single_bytes(attacker: Tenant, held: ExitStack) -> None:
    """Uploads in chunks of one byte, as fast as they are taken."""
    fields = "Transfer-Encoding: chunked", "Content-Type: multipart/form-data; boundary=B"
    head = wire.head("POST /v1/files", *fields, key=attacker.key)
    begun = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    request = head + b"%x\r\n%b\r\n" % (len(begun), begun) + b"1\r\nx\r\n" * 500_000
    for _ in range(8):
        _background(held, lambda: _hold(attacker, request), pause=1)


ATTACKS: dict[str, Attack] = {
    "none": lambda _attacker, _held: None,
    f"{HALF_SENT} half-sent requests without a key": half_sent,
    f"{UPLOADS} unfinished uploads of one key": unfinished_uploads,
    f"{STREAMS} event streams of one key": event_streams,
    f"{VERIFICATIONS} verifications of one key": verifications,
    f"{GUESSES} connections that try keys": wrong_keys,
    "8 uploads in chunks of one byte": single_bytes,
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


def _background(held: ExitStack, work: Callable[[], None], *, pause: float) -> None:
    """Repeat the work in a thread until the stack is closed."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(pause):
            try:
                work()
            except OSError:
                continue

    threading.Thread(target=repeat, daemon=True).start()
    held.callback(ended.set)


def _listing(client: httpx.Client, url: str) -> httpx.Response:
    return client.get(f"{url}/v1/jobs")


def _upload(client: httpx.Client, url: str) -> httpx.Response:
    return client.post(f"{url}/v1/files", files={"file": ("a.jsonl", b'{"text": "one"}\n')})


def _row(seconds: list[float]) -> str:
    if len(seconds) < 2:
        return f"over {sum(seconds):.1f} s | "
    cuts = quantiles(seconds, n=20)
    return f"{cuts[9] * 1000:.0f} ms | {cuts[18] * 1000:.0f} ms"


if __name__ == "__main__":
    main()
