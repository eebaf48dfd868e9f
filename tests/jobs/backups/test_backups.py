"""What a backup holds back, refuses and repeats."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from api.stack import postgres as postgres_server
from jobs import database, objects
from jobs.backups import backup, dump, restore
from jobs.backups.dump import DumpFailed
from jobs.backups.place import DUMP, MANIFEST, Manifest, Place
from jobs.errors import BadRequest, Damaged
from jobs.ledger import files, restoration
from jobs.ledger.restoration import BackupUnderWay
from jobs.lookups import backups
from jobs.objects import ObjectStore
from jobs.purger import purge_deleted
from tests.jobs.ledger.building import PROJECT, Ledger
from tests.jobs.test_collector import bulk, collect, file, garbage_of, put
from tests.support.servers import Server

PROGRAMS = postgres_server.client_programs()


def url_of(ledger: Ledger) -> str:
    return ledger.url


def silent(_: str) -> None:
    pass


def take(ledger: Ledger, store: ObjectStore, place: Place) -> Manifest:
    return backup.take(
        url_of(ledger), store, ledger.sessions, place, programs=PROGRAMS, report=silent
    )


def bring_back(url: str, store: ObjectStore, place: Place) -> restore.Restored:
    engine = database.connect(url, pool_size=2)
    try:
        return restore.restore(
            url,
            store,
            database.sessions(engine),
            place,
            with_objects=True,
            programs=PROGRAMS,
            report=silent,
        )
    finally:
        engine.dispose()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place((tmp_path / "backup").as_uri())


@pytest.fixture
def empty(postgres: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a database with nothing in it."""
    name = f"empty_{abs(hash(request.node.name))}"
    with psycopg.connect(postgres_server.maintenance(postgres.url), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    yield f"{postgres.url.rpartition('/')[0]}/{name}"
    with psycopg.connect(postgres_server.maintenance(postgres.url), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_nothing_is_removed_while_a_backup_is_under_way(ledger: Ledger, store: ObjectStore) -> None:
    job_id, _ = bulk(ledger, store)
    garbage = garbage_of(job_id)
    put(store, *garbage)
    deleted = file(ledger, store, "of-a-backup")
    with restoration.held(url_of(ledger)):
        with ledger.sessions.begin() as session:
            files.delete(session, deleted, project_id=PROJECT)
        assert purge_deleted(ledger.sessions, store) == 0
        report = collect(ledger, store)
        assert report.removed == 0
        assert any("backup" in fault for fault in report.faults)
        assert {f"files/{deleted}", *garbage} <= set(store.keys(""))
    assert purge_deleted(ledger.sessions, store) == 1
    collect(ledger, store)
    assert not {f"files/{deleted}", *garbage} & set(store.keys(""))


def test_the_lock_ends_with_its_session(ledger: Ledger) -> None:
    with restoration.held(url_of(ledger)) as hold:
        with ledger.sessions.begin() as session:
            assert backups.under_way(session)
        _end_session(ledger)
        with pytest.raises(BackupUnderWay, match="lost"):
            hold.check()
        with ledger.sessions.begin() as session:
            assert not backups.under_way(session)


def test_only_what_rows_name_is_restored(
    ledger: Ledger, store: ObjectStore, place: Place, empty: str, tmp_path: Path
) -> None:
    job_id, named = bulk(ledger, store)
    put(store, *garbage_of(job_id), "jobs/job_newer/parts/000000000000-1-1.parquet")
    take(ledger, store, place)
    elsewhere = objects.connect((tmp_path / "elsewhere").as_uri())
    bring_back(empty, elsewhere, place)
    assert named <= set(elsewhere.keys("")) <= set(store.keys(""))
    assert not set(elsewhere.keys("")) & garbage_of(job_id)
    assert not any("job_newer" in key for key in elsewhere.keys(""))


def test_an_object_that_was_missing_before_the_backup_is_named_after_it(
    ledger: Ledger, store: ObjectStore, place: Place, empty: str, tmp_path: Path
) -> None:
    _, named = bulk(ledger, store)
    lost = min(named)
    store.delete(lost)
    take(ledger, store, place)
    done = bring_back(empty, objects.connect((tmp_path / "elsewhere").as_uri()), place)
    assert lost in done.missing


def test_a_restore_that_broke_off_is_repeated(
    ledger: Ledger,
    store: ObjectStore,
    place: Place,
    empty: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, named = bulk(ledger, store)
    take(ledger, store, place)
    elsewhere = objects.connect((tmp_path / "elsewhere").as_uri())
    for step in ("dump.restore", "place.copy"):
        with monkeypatch.context() as broken:
            broken.setattr(f"jobs.backups.restore.{step}", _killed)
            with pytest.raises(KeyboardInterrupt):
                bring_back(empty, elsewhere, place)
    other = Place(f"{place.url}-of-another-day")
    take(ledger, store, other)
    with pytest.raises(BadRequest, match="broke off"):
        bring_back(empty, elsewhere, other)
    bring_back(empty, elsewhere, place)
    assert named <= set(elsewhere.keys(""))
    with pytest.raises(BadRequest, match="must be empty"):
        bring_back(empty, elsewhere, place)


def test_a_backup_without_a_manifest_or_with_other_bytes_is_refused(
    ledger: Ledger, store: ObjectStore, place: Place, empty: str
) -> None:
    manifest = take(ledger, store, place)
    folder = Path(place.url.removeprefix("file://"))
    with pytest.raises(BadRequest, match="must be empty"):
        take(ledger, store, place)
    content = bytearray((folder / DUMP).read_bytes())
    content[-1] ^= 1
    (folder / DUMP).write_bytes(content)
    with pytest.raises(Damaged):
        bring_back(empty, store, place)
    newer = json.dumps(manifest.model_dump(mode="json") | {"revision": "9999"})
    (folder / MANIFEST).write_text(newer)
    with pytest.raises(BadRequest, match="does not know"):
        bring_back(empty, store, place)
    (folder / MANIFEST).unlink()
    with pytest.raises(BadRequest, match="no complete backup"):
        bring_back(empty, store, place)


def test_a_missing_program_and_a_wrong_database_are_one_sentence(
    ledger: Ledger, tmp_path: Path
) -> None:
    with pytest.raises(DumpFailed, match="pg_dump is not in the PATH"):
        list(dump.dumped(url_of(ledger), programs=tmp_path))
    with pytest.raises(DumpFailed, match="does not exist"):
        list(dump.dumped(f"{url_of(ledger)}_not", programs=PROGRAMS))
    assert "PGPASSWORD" not in os.environ


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def _end_session(ledger: Ledger) -> None:
    with psycopg.connect(url_of(ledger).replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name = 'nightshift-backup' AND datname = current_database()"
        )


@pytest.mark.parametrize("name", ["password", "sslpassword"])
def test_a_password_that_ps_would_show_is_refused(name: str) -> None:
    with pytest.raises(DumpFailed, match="write it before the @"):
        dump._target(f"postgresql:///nightshift?host=db&{name}=s3cret")
