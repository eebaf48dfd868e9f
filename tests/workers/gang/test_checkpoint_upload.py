"""A checkpoint counts if all of it is stored; one cut short at any stage never counts."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import pytest

from jobs.errors import CheckpointDamaged
from jobs.ledger.ranks import RankLease
from jobs.objects import ObjectStore
from jobs.queries import checkpoints as queries
from jobs.tables import Checkpoint
from tests.jobs.ledger.training import LOST
from tests.support.waiting import wait_until
from tests.workers.gang.gang_setup import GangSetup, files_of
from workers.gang import workfolder
from workers.gang.rank_lease import HeldRank

STAGES = {0: "first file", 1: "second file", 2: "third file", 3: "manifest"}
"""The objects that one host writes for one checkpoint."""


class DyingStore(ObjectStore):
    """A real store that accepts ``takes`` objects and fails from then on."""

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


class ManifestHookStore(ObjectStore):
    """A real store that calls ``then`` right after it has stored an object."""

    def __init__(self, store: ObjectStore, then: Callable[[], object]) -> None:
        super().__init__(store._backend)
        self._then = then

    def put(self, key: str, data: bytes | memoryview) -> None:
        super().put(key, data)
        self._then()


def test_a_whole_checkpoint_counts_and_names_every_file_with_its_hash(setup: GangSetup) -> None:
    (lease,) = setup.gang()
    with setup.uploader(lease) as uploader:
        uploader.add(setup.written_checkpoint(lease, 10, metric=0.5, best=True))
        assert uploader.finish(until=_soon())
    (stored,) = _stored(setup, lease)
    assert (stored.step, stored.metric, stored.best) == (10, 0.5, True)
    data = setup.store.get(stored.manifest_key)
    assert hashlib.sha256(data).hexdigest() == stored.manifest_sha256
    manifest = json.loads(data)
    assert [file["path"] for file in manifest["files"]] == files_of(lease)
    assert (manifest["job"], manifest["run"], manifest["step"]) == (lease.job_id, 1, 10)
    assert stored.bytes == sum(file["bytes"] for file in manifest["files"])
    for file in manifest["files"]:
        content = setup.store.get(file["key"])
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
        assert content.decode() == f"{file['path']} of 10 by 0"


@pytest.mark.parametrize("takes", STAGES, ids=STAGES.get)
def test_a_checkpoint_that_is_cut_short_never_counts(setup: GangSetup, takes: int) -> None:
    (lease,) = setup.gang()
    with setup.uploader(lease) as uploader:
        uploader.add(setup.written_checkpoint(lease, 10))
        assert uploader.finish(until=_soon())
    dying = DyingStore(setup.store, takes=takes)
    with setup.uploader(lease, store=dying) as uploader:
        uploader.add(setup.written_checkpoint(lease, 20))
        uploader.finish(until=_soon())
    assert setup.training.newest(lease.job_id) == 10
    setup.training.conclude(lease.run_id, LOST)
    (again,) = setup.training.gang(lease.job_id)
    assert setup.training.run(again.run_id).step == 10


def test_a_checkpoint_writes_no_other_objects(setup: GangSetup) -> None:
    (lease,) = setup.gang()
    with setup.uploader(lease, store=DyingStore(setup.store, takes=len(STAGES))) as uploader:
        uploader.add(setup.written_checkpoint(lease, 10))
        assert uploader.finish(until=_soon())
    assert setup.training.newest(lease.job_id) == 10


def test_a_manifest_whose_run_is_lost_before_its_row_is_written_never_counts(
    setup: GangSetup,
) -> None:
    (lease,) = setup.gang()
    store = ManifestHookStore(setup.store, lambda: setup.training.conclude(lease.run_id, LOST))
    with setup.uploader(lease, store=store) as uploader:
        uploader.add(setup.written_checkpoint(lease, 10))
        uploader.finish(until=_soon())
    assert any(key.endswith("manifest.json") for key in _keys(setup, lease))
    assert setup.training.newest(lease.job_id) is None


def test_after_a_failed_upload_the_next_checkpoint_is_stored(setup: GangSetup) -> None:
    (lease,) = setup.gang()
    dying = DyingStore(setup.store, takes=1)
    with setup.uploader(lease, store=dying) as uploader:
        uploader.add(setup.written_checkpoint(lease, 10))
        wait_until(lambda: not (setup.folder(lease) / "uploads" / "10").exists())
        dying.takes = 99
        uploader.add(setup.written_checkpoint(lease, 20))
        assert uploader.finish(until=_soon())
    assert [each.step for each in _stored(setup, lease)] == [20]


def test_the_program_may_delete_its_copy_at_once(setup: GangSetup) -> None:
    (lease,) = setup.gang()
    with setup.uploader(lease) as uploader:
        checkpoint = setup.written_checkpoint(lease, 10)
        uploader.add(checkpoint)
        shutil.rmtree(checkpoint.folder)
        assert uploader.finish(until=_soon())
    assert setup.training.newest(lease.job_id) == 10


def test_a_checkpoint_that_the_program_has_deleted_already_is_left_out(setup: GangSetup) -> None:
    """The agent was slow and read the message too late; that is no reason to end."""
    (lease,) = setup.gang()
    with setup.uploader(lease) as uploader:
        checkpoint = setup.written_checkpoint(lease, 10)
        shutil.rmtree(checkpoint.folder)
        uploader.add(checkpoint)
        uploader.add(setup.written_checkpoint(lease, 20))
        assert uploader.finish(until=_soon())
    assert [each.step for each in _stored(setup, lease)] == [20]


def test_a_checkpoint_that_is_added_twice_is_stored_once(setup: GangSetup) -> None:
    (lease,) = setup.gang()
    with setup.uploader(lease, store=DyingStore(setup.store, takes=len(STAGES))) as uploader:
        checkpoint = setup.written_checkpoint(lease, 10)
        uploader.add(checkpoint)
        uploader.add(checkpoint)
        assert uploader.finish(until=_soon())
    assert len(setup.training.told(lease.job_id, "checkpoint")) == 1


def test_nothing_is_left_in_the_work_folder(setup: GangSetup) -> None:
    (lease,) = setup.gang()
    with setup.uploader(lease) as uploader:
        uploader.add(setup.written_checkpoint(lease, 10))
        assert uploader.finish(until=_soon())
    assert list((setup.folder(lease) / "uploads").iterdir()) == []


# Several hosts.


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_checkpoint_of_two_hosts_counts_when_both_parts_are_there(
    setup: GangSetup, order: tuple[int, int]
) -> None:
    leases = setup.gang(2)
    with setup.uploader(leases[0]) as zero, setup.uploader(leases[1]) as one:
        uploaders = (zero, one)
        first, second = order
        uploaders[first].add(setup.written_checkpoint(leases[first], 10))
        wait_until(lambda: _ranks_with_parts(setup, leases[0], 10) == [first])
        assert setup.training.newest(leases[0].job_id) is None
        uploaders[second].add(setup.written_checkpoint(leases[second], 10))
        assert zero.finish(until=_soon())
    (stored,) = _stored(setup, leases[0])
    manifest = json.loads(setup.store.get(stored.manifest_key))
    assert [f["path"] for f in manifest["files"]] == files_of(leases[0]) + files_of(leases[1])
    assert len({file["key"] for file in manifest["files"]}) == 6


@pytest.mark.parametrize("takes", range(3))
def test_a_checkpoint_whose_second_part_is_cut_short_never_counts(
    setup: GangSetup, takes: int
) -> None:
    leases = setup.gang(2)
    dying = DyingStore(setup.store, takes=takes)
    with setup.uploader(leases[0]) as zero, setup.uploader(leases[1], store=dying) as one:
        zero.add(setup.written_checkpoint(leases[0], 10))
        one.add(setup.written_checkpoint(leases[1], 10))
        one.finish(until=_soon())
        assert not zero.finish(until=time.monotonic() + 0.3)
    assert setup.training.newest(leases[0].job_id) is None


def test_a_checkpoint_that_a_host_left_out_never_counts_and_the_next_does(setup: GangSetup) -> None:
    leases = setup.gang(2)
    with setup.uploader(leases[0]) as zero, setup.uploader(leases[1]) as one:
        zero.add(setup.written_checkpoint(leases[0], 10))
        zero.add(setup.written_checkpoint(leases[0], 20))
        one.add(setup.written_checkpoint(leases[1], 20))
        assert zero.finish(until=_soon())
    assert [each.step for each in _stored(setup, leases[0])] == [20]


def test_an_uploader_that_waits_for_a_part_can_be_stopped(setup: GangSetup) -> None:
    lease, _ = setup.gang(2)
    with setup.uploader(lease) as uploader:
        uploader.add(setup.written_checkpoint(lease, 10))
        wait_until(lambda: _ranks_with_parts(setup, lease, 10) == [0])
        started = time.monotonic()
        uploader.give_up()
        assert time.monotonic() - started < 5
    assert setup.training.newest(lease.job_id) is None


def test_a_part_of_a_lost_run_never_counts(setup: GangSetup) -> None:
    leases = setup.gang(2)
    setup.training.conclude(leases[0].run_id, LOST)
    with setup.uploader(leases[0]) as uploader:
        uploader.add(setup.written_checkpoint(leases[0], 10))
        uploader.finish(until=_soon())
    assert _ranks_with_parts(setup, leases[0], 10) == []
    assert setup.training.newest(leases[0].job_id) is None


# Retention.


def test_old_checkpoints_are_deleted_once_a_newer_one_counts(setup: GangSetup) -> None:
    (lease,) = setup.gang(train={"keep_checkpoints": 2})
    with setup.uploader(lease) as uploader:
        for step in range(10, 60, 10):
            uploader.add(setup.written_checkpoint(lease, step, metric=0.0, best=step == 10))
        assert uploader.finish(until=_soon())
    kept = [each.step for each in _stored(setup, lease) if each.deleted_at is None]
    assert kept == [50, 40, 10]
    steps = {int(key.split("/")[3].partition("-")[0]) for key in _keys(setup, lease)}
    assert steps == {10, 40, 50}


def test_a_checkpoint_of_an_earlier_run_is_deleted_by_a_later_one(setup: GangSetup) -> None:
    (lease,) = setup.gang(train={"keep_checkpoints": 1})
    for step in (10, 20):
        with setup.uploader(lease) as uploader:
            uploader.add(setup.written_checkpoint(lease, step))
            assert uploader.finish(until=_soon())
        if step == 10:
            setup.training.conclude(lease.run_id, LOST)
            (lease,) = setup.training.gang(lease.job_id)
    assert {key.split("/")[3] for key in _keys(setup, lease)} == {"000000020-2"}


# Download.


def test_a_resumed_rank_finds_every_ranks_files_as_they_were_written(setup: GangSetup) -> None:
    leases = setup.gang(2)
    _store_both(setup, leases, 10, best=True)
    _store_both(setup, leases, 20)
    again = _resume(setup, leases)
    _download(setup, again)
    for name, step in (("resume", 20), ("best", 10)):
        folder = setup.folder(again) / name
        for lease in leases:
            for path in files_of(lease):
                assert (folder / path).read_text() == f"{path} of {step} by {lease.rank}"


@pytest.mark.parametrize(
    "damage", ["a flipped byte", "a missing file", "a short file", "a changed manifest"]
)
def test_a_damaged_checkpoint_is_marked_and_the_one_before_is_taken(
    setup: GangSetup, damage: str
) -> None:
    leases = setup.gang(2)
    _store_both(setup, leases, 10)
    _store_both(setup, leases, 20)
    _damage(setup, _stored(setup, leases[0])[0], damage)
    again = _resume(setup, leases)
    with pytest.raises(CheckpointDamaged, match="the checkpoint of step 20 is damaged"):
        _download(setup, again)
    assert setup.training.newest(again.job_id) == 10
    with pytest.raises(CheckpointDamaged, match="found damaged by another rank"):
        _download(setup, again)
    last = _resume(setup, [again])
    _download(setup, last)
    content = (setup.folder(last) / "resume" / "a-0.bin").read_text()
    assert content == "a-0.bin of 10 by 0"


def _store_both(setup: GangSetup, leases: list[RankLease], step: int, **facts: Any) -> None:
    with setup.uploader(leases[0]) as zero, setup.uploader(leases[1]) as one:
        for lease, uploader in zip(leases, (zero, one), strict=True):
            uploader.add(setup.written_checkpoint(lease, step, **facts))
        assert one.finish(until=_soon())
        assert zero.finish(until=_soon())


def _damage(setup: GangSetup, stored: Checkpoint, damage: str) -> None:
    manifest = setup.store.get(stored.manifest_key)
    key = json.loads(manifest)["files"][4]["key"]
    content = setup.store.get(key)
    if damage == "a flipped byte":
        setup.store.put(key, bytes([content[0] ^ 1]) + content[1:])
    elif damage == "a missing file":
        setup.store.delete(key)
    elif damage == "a short file":
        setup.store.put(key, content[:-1])
    else:
        setup.store.put(stored.manifest_key, manifest.replace(b"a-0", b"z-0"))


def _resume(setup: GangSetup, leases: list[RankLease]) -> RankLease:
    """Rank 0 of the run that follows a lost one."""
    setup.training.conclude(leases[0].run_id, LOST)
    return setup.training.gang(leases[0].job_id, 2)[0]


def _download(setup: GangSetup, lease: RankLease) -> None:
    context = setup.context()
    held = HeldRank(lease, context=context)
    workfolder._download_checkpoints(setup.folder(lease), held, context=context)


def _stored(setup: GangSetup, lease: RankLease) -> list[Checkpoint]:
    with setup.ledger.sessions.begin() as session:
        return queries.listing(session, lease.job_id)


def _ranks_with_parts(setup: GangSetup, lease: RankLease, step: int) -> list[int]:
    with setup.ledger.sessions.begin() as session:
        return [part.rank for part in queries.parts(session, lease.run_id, step)]


def _keys(setup: GangSetup, lease: RankLease) -> list[str]:
    return list(setup.store.keys(f"jobs/{lease.job_id}/checkpoints"))


def _soon() -> float:
    return time.monotonic() + 20
