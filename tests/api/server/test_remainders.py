"""An API process that is killed in the middle of an upload leaves nothing for long."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from jobs import objects
from jobs.errors import ObjectMissing, StorageAway
from jobs.ledger import uploads
from jobs.remainders import Bucket
from tests.api.server import wire
from tests.api.server.installation import Installation, new_tenant, start_installation
from tests.support.seaweed import BUCKET, S3
from tests.support.servers import Databases
from tests.support.waiting import wait_until

LEASE = timedelta(seconds=60)
MEBIBYTE = 2**20


@pytest.fixture(params=["folder", "s3"])
def store_environment(request: pytest.FixtureRequest) -> dict[str, str]:
    if request.param == "folder":
        return {}
    server: S3 = request.getfixturevalue("s3")
    url = f"s3://{BUCKET}/{uuid4()}"
    return {**server.environment, "NIGHTSHIFT_OBJECT_STORE_URL": url}


@pytest.fixture
def installation_of(
    fresh_database: Databases, tmp_path: Path, store_environment: dict[str, str]
) -> Iterator[Callable[[str], Installation]]:
    """Starts API processes on one database and one store; each has a home of its own."""
    url, running = fresh_database(), list[Installation]()
    environment = {
        "NIGHTSHIFT_OBJECT_STORE_URL": (tmp_path / "objects").as_uri(),
        "NIGHTSHIFT_UPLOAD_LEASE_SECONDS": "3",
        **store_environment,
    }

    def start(name: str) -> Installation:
        home = tmp_path / name
        home.mkdir()
        running.append(start_installation(url, home, **environment))
        return running[-1]

    yield start
    for each in running:
        each.stop()


def test_what_a_killed_process_left_of_an_upload_is_removed_beside_one_under_way(
    installation_of: Callable[[str], Installation],
    request: pytest.FixtureRequest,
    store_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    def left() -> int:
        if store_environment:
            return len(request.getfixturevalue("s3").unfinished_uploads())
        return sum(path.is_file() for path in (tmp_path / "objects").rglob("*"))

    first, second = installation_of("first"), installation_of("second")
    with new_tenant(first) as one, new_tenant(second) as other:
        body = b"x" * (20 * MEBIBYTE)
        with wire.connected(first) as killed, wire.connected(second) as going_on:
            wire.send(killed, wire.begun_upload(one.key, length=30 * MEBIBYTE) + body)
            upload = wire.begun_upload(other.key, length=20 * MEBIBYTE + 90)
            wire.send(going_on, upload + body)
            wait_until(lambda: left() == 2, seconds=30)
            first.kill()
            wait_until(lambda: left() == 1, seconds=30)
            rest = 20 * MEBIBYTE + 90 - len(upload.partition(b"\r\n\r\n")[2]) - len(body)
            wire.send(going_on, b"y" * (rest - 9) + b"\r\n--B--\r\n")
            answer = wire.read(going_on)
    assert answer.status == 200
    wait_until(lambda: "removed what was left of an upload" in second.log)
    wait_until(lambda: left() == (0 if store_environment else 1))


def test_a_lease_that_was_lost_cannot_be_completed(installation: Installation) -> None:
    file_id = f"file-{uuid4().hex}"
    with new_tenant(installation) as tenant, installation.sessions() as sessions:
        with sessions.begin() as session:
            uploads.begin(
                session,
                file_id=file_id,
                project_id=tenant.project,
                object_key=f"files/{file_id}",
                duration=-LEASE,
            )
        with sessions.begin() as session:
            (claimed,) = uploads.claim_remainders(session, duration=LEASE, limit=10)
            assert claimed.file_id == file_id
        with sessions.begin() as session:
            uploads.renew(session, [file_id], duration=LEASE)
            assert uploads.claim_remainders(session, duration=LEASE, limit=10) == []
        with sessions.begin() as session, pytest.raises(StorageAway, match="send it again"):
            uploads.complete(session, file_id)
        with sessions.begin() as session:
            uploads.abort(session, file_id, fence=claimed.fence)


def test_only_uploads_of_the_same_key_are_aborted(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    prefix = str(uuid4())
    store = objects.connect(f"s3://{BUCKET}/{prefix}")
    bucket = Bucket.of_environment(BUCKET, s3.environment)
    assert bucket is not None

    def write_until_discarded() -> None:
        with store.writer("files/a") as first, store.writer("files/ab") as second:
            for name, sink in (("files/a", first), ("files/ab", second)):
                sink.write(bytes(20 * MEBIBYTE))
                wait_until(functools.partial(bucket.uploads, f"{prefix}/{name}"))
            store.discard("files/a")
            assert bucket.uploads(f"{prefix}/files/a") == []
            assert bucket.uploads(f"{prefix}/files/ab")

    with pytest.raises(ObjectMissing):
        write_until_discarded()
    assert store.size("files/ab") == 20 * MEBIBYTE


def test_without_keys_in_the_environment_nothing_is_asked() -> None:
    assert Bucket.of_environment("b", {}) is None
