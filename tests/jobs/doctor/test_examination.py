"""The checks against real servers: well ones, and ones that are broken in the usual ways."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from api.stack import ports
from jobs import database
from jobs.doctor import examination, servers, store
from jobs.doctor.check_results import CheckResult, CheckStatus
from jobs.doctor.resp import RespConnection
from jobs.ledger import workers
from jobs.objects import ObjectStore
from jobs.queries.capacity import PLANNERS
from jobs.settings import Settings
from jobs.tables import ControlStatus
from tests.support.seaweed import BUCKET, S3
from tests.support.servers import Databases, Server

SECONDS = 20.0


@pytest.fixture
def settings(fresh_database: Databases, valkey: Server, tmp_path: Path) -> Settings:
    """Of an installation in which all is well, but that no process runs."""
    valkey.start()  # an earlier test may have stopped it
    folder = tmp_path / "objects"
    folder.mkdir()
    return Settings(
        database_url=fresh_database(),
        redis_url=valkey.url,
        object_store_url=folder.as_uri(),
        artefact_cache=str(tmp_path / "cache"),
        host_folder=str(tmp_path),
    )


def changed(settings: Settings, **values: Any) -> Settings:
    return settings.model_copy(update=values)


def check(settings: Settings, *names: str, seconds: float = SECONDS) -> dict[str, CheckResult]:
    """The findings of some checks, by name."""
    found = examination.checks(settings, home=None, seconds=seconds)
    wanted = {name: found[name] for name in names}
    return {
        each.check: each for each in examination.run(wanted, settings=settings, seconds=seconds)
    }


def statuses(found: dict[str, CheckResult]) -> dict[str, str]:
    return {name: str(each.status) for name, each in found.items()}


def test_an_installation_in_which_all_is_well(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "NVIDIA", tmp_path / "no device")
    sessions = database.sessions(database.connect(settings.database_url, pool_size=1))
    with sessions.begin() as session:
        now = session.execute(sa.select(sa.func.now())).scalar_one()
        session.merge(ControlStatus(id=1, leader="c", turned_at=now, broker_error=None))
        workers.beat(session, name="w", pool="cpu", slots=2, device="cpu")
        workers.beat(session, name="p", pool=PLANNERS, slots=1, device="none")
    found = check(settings, "postgres", "redis", "objects", "workers")
    assert {each.status for each in found.values()} <= {CheckStatus.OK}, found
    assert list(found) == [
        *("postgres", "postgres clock", "migrations"),
        *("redis", "redis policy", "redis persistence"),
        *("objects", "control", "planners", "pool cpu"),
    ]
    assert found["pool cpu"].sentence == "1 alive with 2 slots on cpu"
    assert not list(Path(settings.object_store_url.removeprefix("file://")).iterdir())


def test_an_installation_in_which_nothing_runs(settings: Settings) -> None:
    found = check(settings, "workers")
    assert statuses(found) == {"control": "error", "planners": "error", "workers": "error"}


def test_a_wrong_password_of_postgres_is_named_and_not_shown(settings: Settings) -> None:
    url = sa.make_url(settings.database_url)
    password = str(url.password)
    wrong = url.set(password="an-0ther-pass").render_as_string(hide_password=False)
    found = check(changed(settings, database_url=wrong), "postgres", "workers")
    assert found["postgres"].status is CheckStatus.ERROR
    assert "password authentication failed" in found["postgres"].sentence
    assert found["postgres"].advice.startswith("correct the user and password")
    assert found["workers"].status is CheckStatus.ERROR
    assert "an-0ther-pass" not in str(found)
    assert password not in str(found)


def test_a_wrong_password_of_redis_is_named_and_not_shown(settings: Settings) -> None:
    server = settings.redis_url.rpartition("@")[2]
    url = f"redis://:an-0ther-pass@{server}"
    found = check(changed(settings, redis_url=url), "redis")["redis"]
    assert found.status is CheckStatus.ERROR
    assert "does not let this user in" in found.sentence
    assert "an-0ther-pass" not in str(found)


def test_closed_ports_are_named(settings: Settings) -> None:
    port = ports.choose()
    closed = changed(
        settings,
        database_url=f"postgresql://u:p@127.0.0.1:{port}/db",
        redis_url=f"redis://127.0.0.1:{port}/0",
    )
    found = check(closed, "postgres", "redis")
    assert statuses(found) == {"postgres": "error", "redis": "error"}
    assert found["postgres"].advice.startswith("start Postgres")
    assert found["redis"].advice.startswith("start Redis or Valkey")
    assert "refused" in found["redis"].sentence


def test_a_server_that_takes_connections_and_never_answers_ends_its_check_alone(
    settings: Settings,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        hung = changed(settings, database_url=f"postgresql://u:p@127.0.0.1:{port}/db")
        found = check(hung, "postgres", "redis", seconds=3)
    assert found["postgres"].status is CheckStatus.ERROR
    assert found["redis"].status is CheckStatus.OK


def test_a_schema_that_is_behind_names_the_command(settings: Settings) -> None:
    sessions = database.sessions(database.connect(settings.database_url, pool_size=1))
    newest, before, *_ = database.revisions()
    with sessions.begin() as session:
        session.execute(sa.text("UPDATE alembic_version SET version_num = :v"), {"v": before})
    found = check(settings, "postgres")["migrations"]
    assert found.status is CheckStatus.ERROR
    assert found.sentence == f"the schema is at {before}, 1 migration behind"
    assert found.advice == "run `python -m jobs.database migrate`"
    assert newest > before


@contextmanager
def configured(url: str, **values: str) -> Iterator[None]:
    """Valkey with other settings for a while."""
    with RespConnection(url, seconds=SECONDS) as connection:
        before = {name: _setting(connection, name) for name in values}
        try:
            for name, value in values.items():
                connection.ask("CONFIG", "SET", name, value)
            yield
        finally:
            for name, value in before.items():
                connection.ask("CONFIG", "SET", name, value)


def _setting(connection: RespConnection, name: str) -> str:
    answer = connection.ask("CONFIG", "GET", name)
    assert isinstance(answer, list)
    return str(answer[1])


def test_a_redis_that_evicts_is_an_error(settings: Settings) -> None:
    limits = {"maxmemory-policy": "allkeys-lru", "maxmemory": "1gb"}
    with configured(settings.redis_url, **limits):
        found = check(settings, "redis")
    assert statuses(found) == {"redis": "ok", "redis policy": "error", "redis persistence": "ok"}
    assert found["redis policy"].advice == "set `maxmemory-policy noeviction`"


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder in which this account cannot write, root or not."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    if os.getuid():
        folder.chmod(0o500)
        yield folder
        folder.chmod(0o700)
        return
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system that can only be read needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_folder_that_cannot_be_written_is_an_error(settings: Settings, read_only: Path) -> None:
    broken = changed(
        settings, object_store_url=read_only.as_uri(), artefact_cache=str(read_only / "cache")
    )
    found = check(broken, "objects", "folders")
    wrong = ("objects", "folder of objects", "cache of models")
    assert [found[name].status for name in wrong] == [CheckStatus.ERROR] * len(wrong)
    assert "cannot be written" in found["cache of models"].sentence


def test_a_folder_that_is_not_there_is_not_made(settings: Settings, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    found = check(changed(settings, object_store_url=missing.as_uri()), "objects")["objects"]
    assert found.status is CheckStatus.ERROR
    assert not missing.exists()


def test_s3_does_all_that_is_asked_of_it(
    settings: Settings, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    bucket = changed(settings, object_store_url=f"s3://{BUCKET}/doctored")
    assert check(bucket, "objects")["objects"].status is CheckStatus.OK
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "an-0ther-secret")
    found = check(bucket, "objects")["objects"]
    assert found.status is CheckStatus.ERROR
    assert "an-0ther-secret" not in str(found)


def test_a_store_that_writes_over_what_is_there_is_an_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As some S3 servers do, which know no conditional writes."""

    def create(self: ObjectStore, key: str, data: bytes) -> bool:
        self.put(key, data)
        return True

    monkeypatch.setattr(ObjectStore, "create", create)
    (found,) = store.check(settings)
    assert found.status is CheckStatus.ERROR
    assert "writes over an object" in found.sentence


def test_a_check_that_fails_by_itself_ends_no_other(settings: Settings) -> None:
    def fail() -> list[CheckResult]:
        raise RuntimeError("oh")

    def hang() -> list[CheckResult]:
        threading.Event().wait(SECONDS)
        return []

    found = examination.run({"a": fail, "b": hang}, settings=settings, seconds=0.2)
    assert [(each.check, each.status) for each in found] == [("a", "error"), ("b", "error")]
    assert "did not answer within 0.2 s" in found[1].sentence
