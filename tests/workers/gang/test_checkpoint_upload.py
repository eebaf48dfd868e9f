"""A checkpoint that was cut short at whatever stage never counts; a whole one does."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from jobs.errors import CheckpointDamaged
from jobs.ledger.ranks import RankLease
from jobs.objects import ObjectStore
from jobs.queries import checkpoints as queries
from jobs.tables import Checkpoint
from tests.jobs.ledger.building import Ledger
from tests.jobs.ledger.training import LOST
from tests.support.servers import Databases
from tests.support.waiting import wait_until
from tests.workers.gang.standing import Standing, files_of
from workers.gang import workfolder
from workers.gang.rank_lease import Attendance

STAGES = {0: "first file", 1: "second file", 2: "third file", 3: "manifest"}
"""What the object store is asked for in one checkpoint of one host."""


class DyingStore(ObjectStore):
    """A real store that takes so many objects, and then none."""

    def __init__(self, store: ObjectStore, *, takes: int) -> None:
        super().__init__(store._backend)
        self.takes = takes

    def put(self, key: str, data: bytes | memoryview) -> None:
        self._take()
        super().put(key, data)

    @contextmanager
    def writer(self, key: str) -> Iterator[IO[bytes]]:
        with super().writer(key) as sink:
            yield sink
            self._take()  # it breaks off at the end, when all bytes are sent

    def _take(self) -> None:
        if self.takes <= 0:
            raise OSError("the store went away")
        self.takes -= 1


class Meddling(ObjectStore):
    """A real store at which something happens just after the manifest is there."""

    def __init__(self, store: ObjectStore, then: Callable[[], object]) -> None:
        super().__init__(store._backend)
        self._then = then

    def put(self, key: str, data: bytes | memoryview) -> None:
        super().put(key, data)
        self._then()


@pytest.fixture(scope="module")
def ledger(fresh_database: Databases) -> Iterator[Ledger]:
    ledger = Ledger(fresh_database())
    yield ledger
    ledger.engine.dispose()


@pytest.fixture
def standing(ledger: Ledger, tmp_path: Path) -> Standing:
    return Standing(ledger, tmp_path)


def test_a_whole_checkpoint_counts_and_names_every_file_with_its_hash(standing: Standing) -> None:
    (held,) = standing.gang()
    with standing.uploader(held) as uploader:
        uploader.add(standing.written(held, 10, metric=0.5, best=True))
        assert uploader.finish(until=_soon())
    (stored,) = _stored(standing, held)
    assert (stored.step, stored.metric, stored.best) == (10, 0.5, True)
    data = standing.store.get(stored.manifest_key)
    assert hashlib.sha256(data).hexdigest() == stored.manifest_sha256
    manifest = json.loads(data)
    assert [file["path"] for file in manifest["files"]] == files_of(held)
    assert (manifest["job"], manifest["run"], manifest["step"]) == (held.job_id, 1, 10)
    assert stored.bytes == sum(file["bytes"] for file in manifest["files"])
    for file in manifest["files"]:
        content = standing.store.get(file["key"])
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
        assert content.decode() == f"{file['path']} of 10 by 0"


@pytest.mark.parametrize("takes", STAGES, ids=STAGES.get)
def test_a_checkpoint_that_is_cut_short_never_counts(standing: Standing, takes: int) -> None:
    (held,) = standing.gang()
    with standing.uploader(held) as uploader:
        uploader.add(standing.written(held, 10))
        assert uploader.finish(until=_soon())
    dying = DyingStore(standing.store, takes=takes)
    with standing.uploader(held, store=dying) as uploader:
        uploader.add(standing.written(held, 20))
        uploader.finish(until=_soon())
    assert standing.training.newest(held.job_id) == 10
    standing.training.conclude(held.run_id, LOST)
    (again,) = standing.training.gang(held.job_id)
    assert standing.training.run(again.run_id).step == 10


def test_the_stages_above_are_all_that_there_are(standing: Standing) -> None:
    (held,) = standing.gang()
    with standing.uploader(held, store=DyingStore(standing.store, takes=len(STAGES))) as uploader:
        uploader.add(standing.written(held, 10))
        assert uploader.finish(until=_soon())
    assert standing.training.newest(held.job_id) == 10


def test_a_manifest_whose_run_is_lost_before_its_row_is_written_never_counts(
    standing: Standing,
) -> None:
    (held,) = standing.gang()
    store = Meddling(standing.store, lambda: standing.training.conclude(held.run_id, LOST))
    with standing.uploader(held, store=store) as uploader:
        uploader.add(standing.written(held, 10))
        uploader.finish(until=_soon())
    assert any(key.endswith("manifest.json") for key in _keys(standing, held))
    assert standing.training.newest(held.job_id) is None


def test_after_one_that_failed_the_next_is_stored(standing: Standing) -> None:
    (held,) = standing.gang()
    dying = DyingStore(standing.store, takes=1)
    with standing.uploader(held, store=dying) as uploader:
        uploader.add(standing.written(held, 10))
        wait_until(lambda: not (standing.folder(held) / "uploads" / "10").exists())
        dying.takes = 99
        uploader.add(standing.written(held, 20))
        assert uploader.finish(until=_soon())
    assert [each.step for each in _stored(standing, held)] == [20]


def test_the_program_may_delete_its_copy_at_once(standing: Standing) -> None:
    (held,) = standing.gang()
    with standing.uploader(held) as uploader:
        written = standing.written(held, 10)
        uploader.add(written)
        shutil.rmtree(written.folder)
        assert uploader.finish(until=_soon())
    assert standing.training.newest(held.job_id) == 10


def test_a_checkpoint_that_the_program_has_deleted_already_is_left_out(standing: Standing) -> None:
    """The agent was held up, and did not hear of it in time; that is no reason to end."""
    (held,) = standing.gang()
    with standing.uploader(held) as uploader:
        written = standing.written(held, 10)
        shutil.rmtree(written.folder)
        uploader.add(written)
        uploader.add(standing.written(held, 20))
        assert uploader.finish(until=_soon())
    assert [each.step for each in _stored(standing, held)] == [20]


def test_a_checkpoint_that_is_told_twice_is_stored_once(standing: Standing) -> None:
    (held,) = standing.gang()
    with standing.uploader(held, store=DyingStore(standing.store, takes=len(STAGES))) as uploader:
        written = standing.written(held, 10)
        uploader.add(written)
        uploader.add(written)
        assert uploader.finish(until=_soon())
    assert len(standing.training.told(held.job_id, "checkpoint")) == 1


def test_nothing_is_left_in_the_work_folder(standing: Standing) -> None:
    (held,) = standing.gang()
    with standing.uploader(held) as uploader:
        uploader.add(standing.written(held, 10))
        assert uploader.finish(until=_soon())
    assert list((standing.folder(held) / "uploads").iterdir()) == []


# Several hosts.


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_checkpoint_of_two_hosts_counts_when_both_parts_are_there(
    standing: Standing, order: tuple[int, int]
) -> None:
    held = standing.gang(2)
    with standing.uploader(held[0]) as zero, standing.uploader(held[1]) as one:
        uploaders = (zero, one)
        first, second = order
        uploaders[first].add(standing.written(held[first], 10))
        wait_until(lambda: _ranks_with_parts(standing, held[0], 10) == [first])
        assert standing.training.newest(held[0].job_id) is None
        uploaders[second].add(standing.written(held[second], 10))
        assert zero.finish(until=_soon())
    (stored,) = _stored(standing, held[0])
    manifest = json.loads(standing.store.get(stored.manifest_key))
    assert [f["path"] for f in manifest["files"]] == files_of(held[0]) + files_of(held[1])
    assert len({file["key"] for file in manifest["files"]}) == 6


@pytest.mark.parametrize("takes", range(3))
def test_a_checkpoint_whose_second_part_is_cut_short_never_counts(
    standing: Standing, takes: int
) -> None:
    held = standing.gang(2)
    dying = DyingStore(standing.store, takes=takes)
    with standing.uploader(held[0]) as zero, standing.uploader(held[1], store=dying) as one:
        zero.add(standing.written(held[0], 10))
        one.add(standing.written(held[1], 10))
        one.finish(until=_soon())
        assert not zero.finish(until=time.monotonic() + 0.3)
    assert standing.training.newest(held[0].job_id) is None


def test_one_that_a_host_left_out_is_left_out_and_the_next_counts(standing: Standing) -> None:
    held = standing.gang(2)
    with standing.uploader(held[0]) as zero, standing.uploader(held[1]) as one:
        zero.add(standing.written(held[0], 10))
        zero.add(standing.written(held[0], 20))
        one.add(standing.written(held[1], 20))
        assert zero.finish(until=_soon())
    assert [each.step for each in _stored(standing, held[0])] == [20]


def test_whoever_waits_for_a_part_gives_up_when_told(standing: Standing) -> None:
    held, _ = standing.gang(2)
    with standing.uploader(held) as uploader:
        uploader.add(standing.written(held, 10))
        wait_until(lambda: _ranks_with_parts(standing, held, 10) == [0])
        began = time.monotonic()
        uploader.give_up()
        assert time.monotonic() - began < 5
    assert standing.training.newest(held.job_id) is None


def test_a_part_of_a_lost_run_never_counts(standing: Standing) -> None:
    held = standing.gang(2)
    standing.training.conclude(held[0].run_id, LOST)
    with standing.uploader(held[0]) as uploader:
        uploader.add(standing.written(held[0], 10))
        uploader.finish(until=_soon())
    assert _ranks_with_parts(standing, held[0], 10) == []
    assert standing.training.newest(held[0].job_id) is None


# Old ones.


def test_old_ones_are_deleted_once_a_newer_one_counts(standing: Standing) -> None:
    (held,) = standing.gang(train={"keep_checkpoints": 2})
    with standing.uploader(held) as uploader:
        for step in range(10, 60, 10):
            uploader.add(standing.written(held, step, metric=0.0, best=step == 10))
        assert uploader.finish(until=_soon())
    kept = [each.step for each in _stored(standing, held) if each.deleted_at is None]
    assert kept == [50, 40, 10]
    steps = {int(key.split("/")[3].partition("-")[0]) for key in _keys(standing, held)}
    assert steps == {10, 40, 50}


def test_a_checkpoint_of_an_earlier_run_is_deleted_by_a_later_one(standing: Standing) -> None:
    (held,) = standing.gang(train={"keep_checkpoints": 1})
    for step in (10, 20):
        with standing.uploader(held) as uploader:
            uploader.add(standing.written(held, step))
            assert uploader.finish(until=_soon())
        if step == 10:
            standing.training.conclude(held.run_id, LOST)
            (held,) = standing.training.gang(held.job_id)
    assert {key.split("/")[3] for key in _keys(standing, held)} == {"000000020-2"}


# Bringing it back.


def test_a_resumed_rank_finds_every_ranks_files_as_they_were_written(standing: Standing) -> None:
    held = standing.gang(2)
    _store_both(standing, held, 10, best=True)
    _store_both(standing, held, 20)
    again = _resume(standing, held)
    _bring(standing, again)
    for name, step in (("resume", 20), ("best", 10)):
        folder = standing.folder(again) / name
        for each in held:
            for path in files_of(each):
                assert (folder / path).read_text() == f"{path} of {step} by {each.rank}"


@pytest.mark.parametrize(
    "damage", ["a flipped byte", "a missing file", "a short file", "a changed manifest"]
)
def test_a_damaged_checkpoint_is_marked_and_the_one_before_is_taken(
    standing: Standing, damage: str
) -> None:
    held = standing.gang(2)
    _store_both(standing, held, 10)
    _store_both(standing, held, 20)
    _damage(standing, _stored(standing, held[0])[0], damage)
    again = _resume(standing, held)
    with pytest.raises(CheckpointDamaged, match="the checkpoint of step 20 is damaged"):
        _bring(standing, again)
    assert standing.training.newest(again.job_id) == 10
    with pytest.raises(CheckpointDamaged, match="found damaged by another rank"):
        _bring(standing, again)
    last = _resume(standing, [again])
    _bring(standing, last)
    content = (standing.folder(last) / "resume" / "a-0.bin").read_text()
    assert content == "a-0.bin of 10 by 0"


def _store_both(standing: Standing, held: list[RankLease], step: int, **facts: Any) -> None:
    with standing.uploader(held[0]) as zero, standing.uploader(held[1]) as one:
        for each, uploader in zip(held, (zero, one), strict=True):
            uploader.add(standing.written(each, step, **facts))
        assert one.finish(until=_soon())
        assert zero.finish(until=_soon())


def _damage(standing: Standing, stored: Checkpoint, damage: str) -> None:
    manifest = standing.store.get(stored.manifest_key)
    key = json.loads(manifest)["files"][4]["key"]
    content = standing.store.get(key)
    if damage == "a flipped byte":
        standing.store.put(key, bytes([content[0] ^ 1]) + content[1:])
    elif damage == "a missing file":
        standing.store.delete(key)
    elif damage == "a short file":
        standing.store.put(key, content[:-1])
    else:
        standing.store.put(stored.manifest_key, manifest.replace(b"a-0", b"z-0"))


def _resume(standing: Standing, held: list[RankLease]) -> RankLease:
    """Rank 0 of the run that follows a lost one."""
    standing.training.conclude(held[0].run_id, LOST)
    return standing.training.gang(held[0].job_id, 2)[0]


def _bring(standing: Standing, held: RankLease) -> None:
    context = standing.context()
    attendance = Attendance(held, context=context)
    workfolder._bring_checkpoints(standing.folder(held), attendance, context=context)


def _stored(standing: Standing, held: RankLease) -> list[Checkpoint]:
    with standing.ledger.sessions.begin() as session:
        return queries.listing(session, held.job_id)


def _ranks_with_parts(standing: Standing, held: RankLease, step: int) -> list[int]:
    with standing.ledger.sessions.begin() as session:
        return [part.rank for part in queries.parts(session, held.run_id, step)]


def _keys(standing: Standing, held: RankLease) -> list[str]:
    return list(standing.store.keys(f"jobs/{held.job_id}/checkpoints"))


def _soon() -> float:
    return time.monotonic() + 20
