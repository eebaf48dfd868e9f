"""The cache of artefacts: fetched once, evicted by last use, safe under kills."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.errors import StorageAway
from jobs.models.cache import ArtefactCache
from tests.support.waiting import wait_until

Fill = Callable[[Path], None]


def beat() -> None:
    pass


def writing(size: int) -> Fill:
    def fill(folder: Path) -> None:
        (folder / "data").write_bytes(bytes(size))

    return fill


def use(cache: ArtefactCache, key: str, *, size: int = 10) -> None:
    with cache.using(key, size=size, fill=writing(size), beat=beat) as folder:
        assert (folder / "data").stat().st_size == size


def kept(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if path.is_dir()}


def test_an_artefact_is_fetched_once(tmp_path: Path) -> None:
    cache, fetched = ArtefactCache(tmp_path, limit=100), []

    def fill(folder: Path) -> None:
        fetched.append(folder)

    for _ in range(3):
        with cache.using("a", size=1, fill=fill, beat=beat) as folder:
            assert folder == tmp_path / "a"
    assert len(fetched) == 1


def test_the_least_recently_used_artefact_is_evicted(tmp_path: Path) -> None:
    cache = ArtefactCache(tmp_path, limit=30)
    for key in ("a", "b", "c", "a", "d"):
        use(cache, key)
    assert kept(tmp_path) == {"a", "c", "d"}


def test_no_more_is_evicted_than_necessary(tmp_path: Path) -> None:
    cache = ArtefactCache(tmp_path, limit=30)
    for key in ("a", "b", "c"):
        use(cache, key)
    use(cache, "d", size=15)
    assert kept(tmp_path) == {"c", "d"}


def test_an_artefact_in_use_is_not_evicted(tmp_path: Path) -> None:
    cache = ArtefactCache(tmp_path, limit=20)
    with cache.using("a", size=10, fill=writing(10), beat=beat):
        use(cache, "b")
        use(cache, "c")
        assert kept(tmp_path) == {"a", "c"}


def test_with_everything_in_use_there_is_no_room_until_an_artefact_is_released(
    tmp_path: Path,
) -> None:
    cache = ArtefactCache(tmp_path, limit=15)
    with (
        cache.using("a", size=10, fill=writing(10), beat=beat),
        pytest.raises(OSError, match=r"may hold 15 bytes .*, of which 10 are in use, and 10 more"),
    ):
        use(cache, "b")
    use(cache, "b")
    assert kept(tmp_path) == {"b"}


def test_a_failed_fetch_leaves_nothing_and_can_be_retried(tmp_path: Path) -> None:
    cache = ArtefactCache(tmp_path, limit=10)

    def broken(folder: Path) -> None:
        (folder / "half").touch()
        raise ValueError("broken")

    with (
        pytest.raises(ValueError, match="broken"),
        cache.using("a", size=10, fill=broken, beat=beat),
    ):
        pass
    assert kept(tmp_path) == set()
    use(cache, "b")
    use(cache, "a")


def test_a_file_that_a_folder_links_to_is_not_removed_with_it(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "weights").touch()
    cache = ArtefactCache(tmp_path / "cache", limit=10)
    with cache.using("a", size=10, fill=lambda at: (at / "base").symlink_to(base), beat=beat):
        pass
    use(cache, "b")
    assert kept(tmp_path / "cache") == {"b"}
    assert (base / "weights").exists()


def test_of_several_threads_one_fetches_and_the_others_wait_and_beat(
    tmp_path: Path,
) -> None:
    cache, go, beats, fetched = ArtefactCache(tmp_path, limit=10), threading.Event(), [], []

    def fill(folder: Path) -> None:
        fetched.append(folder)
        assert go.wait(20)

    def use_it() -> None:
        with cache.using("a", size=10, fill=fill, beat=lambda: beats.append(1)):
            pass

    threads = [threading.Thread(target=use_it) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(beats) >= 4, seconds=20)
    go.set()
    for thread in threads:
        thread.join(20)
    assert len(fetched) == 1


def _hold(root: Path, ready: Path) -> None:
    with ArtefactCache(root, limit=20).using("a", size=10, fill=writing(10), beat=beat):
        ready.touch()
        signal.pause()


def _fetch_half(root: Path, ready: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "half").touch()
        ready.touch()
        signal.pause()

    with ArtefactCache(root, limit=20).using("a", size=10, fill=fill, beat=beat):
        pass


class OtherProcess:
    """Another process that uses the cache until it is killed."""

    def __init__(self, target: Callable[[Path, Path], None], root: Path, ready: Path) -> None:
        self._process = multiprocessing.get_context("spawn").Process(
            target=target, args=(root, ready)
        )
        self._process.start()
        wait_until(ready.exists, seconds=30)

    def kill(self) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()


def test_an_artefact_used_by_another_process_stays_until_that_process_is_dead(
    tmp_path: Path,
) -> None:
    root = tmp_path / "cache"
    other = OtherProcess(_hold, root, tmp_path / "ready")
    cache = ArtefactCache(root, limit=20)
    use(cache, "b")
    use(cache, "c")
    assert kept(root) == {"a", "c"}
    other.kill()
    use(cache, "d", size=15)
    assert kept(root) == {"d"}


def test_a_half_fetched_artefact_of_a_killed_process_is_fetched_again(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    OtherProcess(_fetch_half, root, tmp_path / "ready").kill()
    assert kept(root) == {"a.part"}
    use(ArtefactCache(root, limit=20), "a")
    assert kept(root) == {"a"}


def test_a_half_fetched_artefact_of_a_killed_process_is_evicted_like_any_other(
    tmp_path: Path,
) -> None:
    root = tmp_path / "cache"
    OtherProcess(_fetch_half, root, tmp_path / "ready").kill()
    use(ArtefactCache(root, limit=20), "b", size=15)
    assert kept(root) == {"b"}


def test_an_unusable_cache_folder_is_a_fault_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    broken = ArtefactCache(tmp_path / "cache", limit=100)
    with (
        pytest.raises(StorageAway, match=r"\(artefact_cache\): (File exists|Not a directory)"),
        broken.using("a", size=1, fill=lambda _: None, beat=lambda: None),
    ):
        raise AssertionError("it must not be yielded")
