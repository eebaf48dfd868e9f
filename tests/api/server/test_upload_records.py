"""The record of an upload: its object goes only where the row is certainly not there."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exc
from sqlalchemy.orm import Session

from api.server.multipart import Upload
from api.server.upload_leases import UploadLeases
from api.server.uploads import Origin, Uploads
from jobs import objects
from jobs.errors import StorageAway
from jobs.ledger import uploads
from jobs.objects import ObjectStore
from jobs.tables import File, UnfinishedUpload
from tests.jobs.ledger.building import PROJECT, Ledger

KEY = "files/file-{}"
HEAD = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'


class Flaky:
    """Sessions whose next transaction loses its answer: before its commit, or behind it."""

    def __init__(self, ledger: Ledger) -> None:
        self._sessions = ledger.sessions
        self.lost: str | None = None
        self.away = False

    @contextmanager
    def begin(self) -> Iterator[Session]:
        lost, self.lost = self.lost, None
        if self.away:
            raise _gone()
        if lost == "before":
            with self._sessions() as session:
                yield session
                self.away = True
                raise _gone()
        with self._sessions.begin() as session:
            yield session
        if lost == "behind":
            raise _gone()


def _gone() -> exc.OperationalError:
    return exc.OperationalError("COMMIT", {}, Exception("the connection is gone"))


class Desk:
    """What the API records uploads with, on a ledger and a folder."""

    def __init__(self, ledger: Ledger, store: ObjectStore) -> None:
        self.ledger, self.store, self.sessions = ledger, store, Flaky(ledger)
        given: Any = self.sessions
        lease = timedelta(seconds=60)
        self.leases = UploadLeases(store=store, sessions=given, duration=lease)
        self.uploads = Uploads(store=store, sessions=given, leases=self.leases, max_bytes=100)

    def receive(self, name: str, *, lost: str | None = None, data: bytes | None = None) -> File:
        file_id, key = f"file-{name}", KEY.format(name)
        self.leases.begin(file_id, project_id=PROJECT, object_key=key)
        data = data or name.encode()
        self.store.put(key, data)
        upload = Upload(io.BytesIO(), boundary=b"B", max_bytes=100)
        upload.feed(HEAD + data + b"\r\n--B--\r\n")
        self.sessions.lost = lost
        return self.uploads._record(
            upload, file_id=file_id, origin=Origin(PROJECT, "sha256 of a key"), key=key
        )

    def rows(self, name: str) -> tuple[bool, bool]:
        """Whether the file is recorded, and whether its upload counts as under way."""
        with self.ledger.sessions.begin() as session:
            file_id = f"file-{name}"
            found = session.get(File, file_id), session.get(UnfinishedUpload, file_id)
        return found[0] is not None, found[1] is not None


@pytest.fixture
def desk(ledger: Ledger, tmp_path: Path) -> Desk:
    return Desk(ledger, objects.connect((tmp_path / "objects").as_uri()))


def test_a_commit_whose_answer_is_lost_is_found_and_its_object_stays(desk: Desk) -> None:
    file = desk.receive("lost", lost="behind")
    assert (file.id, file.filename) == ("file-lost", "a.csv")
    assert desk.rows("lost") == (True, False)
    assert desk.store.exists(KEY.format("lost"))


def test_where_no_one_can_tell_the_object_stays_until_the_lease_has_run_out(desk: Desk) -> None:
    with pytest.raises(exc.OperationalError):
        desk.receive("unsure", lost="before")
    assert desk.rows("unsure") == (False, True)
    assert desk.store.exists(KEY.format("unsure"))


def test_an_upload_whose_lease_was_lost_leaves_no_object(desk: Desk) -> None:
    really = desk.leases.begin

    def begin(file_id: str, **facts: str) -> None:
        really(file_id, **facts)
        with desk.ledger.sessions.begin() as session:
            uploads.abort(session, file_id)

    desk.leases.begin = begin  # type: ignore[method-assign]
    with pytest.raises(StorageAway, match="send it again"):
        desk.receive("late")
    assert desk.rows("late") == (False, False)
    assert not desk.store.exists(KEY.format("late"))


def test_the_same_bytes_are_stored_once(desk: Desk) -> None:
    first = desk.receive("first", data=b"same")
    second = desk.receive("second", data=b"same")
    other = desk.receive("other", data=b"another")
    assert (first.object_key, second.object_key) == (KEY.format("first"),) * 2
    assert other.object_key == KEY.format("other")
    assert sorted(desk.store.keys("files")) == [KEY.format("first"), KEY.format("other")]
