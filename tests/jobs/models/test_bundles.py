"""Bundles on both kinds of store."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

import pytest

from jobs import objects
from jobs.errors import Damaged
from jobs.models import bundles
from jobs.objects import ObjectStore
from tests.support.seaweed import BUCKET, S3


@pytest.fixture(params=["folder", "s3"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ObjectStore:
    if request.param == "folder":
        return objects.connect((tmp_path / "objects").as_uri())
    server: S3 = request.getfixturevalue("s3")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return objects.connect(f"s3://{BUCKET}/{secrets.token_hex(4)}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "weights").write_bytes(secrets.token_bytes(objects.PART + 5))
    (folder / "config.json").write_text("{}")
    (folder / "1_Pooling" / "config.json").write_text("{} ")
    (folder / "empty").touch()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_folder_comes_back_as_it_was(store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    files = bundles.upload(store, folder, prefix="models/1")
    bundles.download(store, files, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(folder)
    assert bundles.size(files) == sum(map(len, contents(folder).values()))


def test_each_file_is_listed_with_key_size_and_hash(store: ObjectStore, folder: Path) -> None:
    files = bundles.upload(store, folder, prefix="models/1")
    assert [file["path"] for file in files] == [
        "1_Pooling/config.json",
        "config.json",
        "empty",
        "weights",
    ]
    assert files[1] == {
        "path": "config.json",
        "key": "models/1/config.json",
        "bytes": 2,
        "sha256": hashlib.sha256(b"{}").hexdigest(),
    }


def test_an_object_with_a_changed_byte_is_damaged(
    store: ObjectStore, folder: Path, tmp_path: Path
) -> None:
    files = bundles.upload(store, folder, prefix="models/1")
    weights = bytearray(store.get("models/1/weights"))
    weights[100] ^= 1
    store.put("models/1/weights", bytes(weights))
    with pytest.raises(Damaged, match="weights is damaged in the object store"):
        bundles.download(store, files, tmp_path / "back")


def test_a_missing_object_is_damaged(store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    files = bundles.upload(store, folder, prefix="models/1")
    store.delete("models/1/weights")
    with pytest.raises(Damaged, match="weights is gone from the object store"):
        bundles.download(store, files, tmp_path / "back")


def test_an_upload_that_its_beat_stops_stores_no_partial_file(
    store: ObjectStore, folder: Path
) -> None:
    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        bundles.upload(store, folder, prefix="models/1", beat=stop)
    assert list(store.keys("models/1")) == []


def test_links_to_folders_are_left_out(store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    before = bundles.upload(store, folder, prefix="models/1")
    (folder / "base").symlink_to(tmp_path / "other")
    assert bundles.upload(store, folder, prefix="models/1") == before


def test_the_digest_depends_only_on_paths_and_contents(store: ObjectStore, folder: Path) -> None:
    first = bundles.upload(store, folder, prefix="models/1")
    second = bundles.upload(store, folder, prefix="models/2")
    assert bundles.digest(first) == bundles.digest(reversed(second))
    (folder / "config.json").rename(folder / "other.json")
    assert bundles.digest(bundles.upload(store, folder, prefix="models/3")) != bundles.digest(first)


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../../up", ""])
def test_no_file_is_written_outside_of_the_folder(tmp_path: Path, path: str) -> None:
    store = objects.connect((tmp_path / "objects").as_uri())
    file = {"path": path, "key": "key", "bytes": 0, "sha256": ""}
    with pytest.raises(Damaged, match="must lie within its folder"):
        bundles.download(store, [file], tmp_path / "back")


def test_a_listing_shows_sizes_and_changes_with_the_content(store: ObjectStore) -> None:
    store.put("models/1/a", b"one")
    (before,) = store.listing("models/1")
    store.put("models/1/a", b"two!")
    (after,) = store.listing()
    assert (before.key, before.bytes, after.bytes) == ("models/1/a", 3, 4)
    assert before.etag != after.etag
