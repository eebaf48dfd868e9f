"""What only a local folder can get wrong: its URL, and a disk that takes no more."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from jobs import objects
from jobs.errors import BadRequest

MIB = 2**20


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["plain", "two words", "100%", "ünï#code?", "%20"])
def test_a_folder_with_any_name_is_its_url(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    objects.connect(folder.as_uri()).put("a", b"1")
    assert (folder / "a").read_bytes() == b"1"


def test_spaces_in_a_url_need_no_escape(tmp_path: Path) -> None:
    objects.connect(f"file://{quote(str(tmp_path))}/two words").put("a", b"1")
    assert (tmp_path / "two words" / "a").exists()


@pytest.mark.parametrize(
    "url", ["", "objects", "file:objects", "file://host/x", "s3://", "ftp://x/y", "/var/x"]
)
def test_an_unusable_url_is_refused(url: str) -> None:
    with pytest.raises(BadRequest, match="must be file:///folder or s3://bucket/prefix"):
        objects.connect(url)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # a file may just be closing


@pytest.mark.parametrize("size", [5 * MIB, 20 * MIB])
def test_a_write_to_a_full_disk_is_an_error_and_leaves_nothing(tiny_disk: Path, size: int) -> None:
    store = objects.connect(tiny_disk.as_uri())
    with pytest.raises(OSError, match="No space left"), store.writer("part") as file:
        file.write(b"x" * size)
    with pytest.raises(OSError, match="No space left"):
        store.put("part", b"x" * size)
    assert not store.exists("part")
    assert files(tiny_disk) == []


def test_a_full_disk_is_usable_again_after_a_deletion(tiny_disk: Path) -> None:
    store = objects.connect(tiny_disk.as_uri())
    store.put("old", b"x" * (3 * MIB))
    with pytest.raises(OSError, match="No space left"):
        store.put("new", b"x" * (2 * MIB))
    store.delete("old")
    store.put("new", b"x" * (2 * MIB))
    assert files(tiny_disk) == ["new"]


LIMITED = """
import resource, sys
from jobs import objects
store = objects.connect(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
for size in (2 * 2**20, 20 * 2**20):
    try:
        with store.writer("part") as file:
            file.write(b"x" * size)
    except OSError:
        continue
    sys.exit("the write was not refused")
"""


def test_a_refused_write_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    url = (tmp_path / "objects").as_uri()
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, url], check=False, timeout=60, capture_output=True
    )
    assert ended.returncode == 0, ended.stderr.decode()
    assert files(tmp_path) == []
