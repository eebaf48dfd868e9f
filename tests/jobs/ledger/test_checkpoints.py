"""Which checkpoint a job goes on from, and which need not be kept."""

from __future__ import annotations

import pytest

from jobs.errors import LeaseLost
from jobs.ledger import checkpoints
from jobs.ledger.ranks import RankLease
from jobs.queries import checkpoints as queries
from jobs.tables import CheckpointPart
from tests.jobs.ledger.building import Ledger
from tests.jobs.ledger.training import LOST, Training


@pytest.fixture
def training(ledger: Ledger) -> Training:
    return Training(ledger)


@pytest.fixture
def lease(training: Training) -> RankLease:
    """Rank 0 of a run of two."""
    return training.gang(training.job(machines=2), 2)[0]


def test_a_job_goes_on_from_the_furthest_checkpoint(training: Training, lease: RankLease) -> None:
    assert training.newest(lease.job_id) is None
    for step in (10, 30, 20):  # whatever the order in which they were stored
        training.checkpoint(lease, step)
    assert training.newest(lease.job_id) == 30


def test_parts_alone_are_no_checkpoint(training: Training, lease: RankLease) -> None:
    _add_part(training, lease, 10)
    assert training.newest(lease.job_id) is None


def test_a_damaged_checkpoint_is_passed_over(training: Training, lease: RankLease) -> None:
    ids = [training.checkpoint(lease, step) for step in (10, 20, 30)]
    _damage(training, lease, ids[2])
    assert training.newest(lease.job_id) == 20
    _damage(training, lease, ids[1])
    assert training.newest(lease.job_id) == 10
    _damage(training, lease, ids[0])
    assert training.newest(lease.job_id) is None


def test_damage_is_told_once_however_many_find_it(training: Training, lease: RankLease) -> None:
    damaged = training.checkpoint(lease, 10)
    for _ in range(3):
        _damage(training, lease, damaged)
    assert training.told(lease.job_id, "checkpoint_damaged") == [{"step": 10, "reason": "torn"}]


def test_a_damaged_or_deleted_checkpoint_is_not_to_be_had(
    training: Training, lease: RankLease
) -> None:
    whole, damaged, deleted = [training.checkpoint(lease, step) for step in (10, 20, 30)]
    _damage(training, lease, damaged)
    _delete(training, lease, deleted)
    with training.sessions.begin() as session:
        found = [queries.get(session, each) for each in (whole, damaged, deleted)]
    assert [each and each.step for each in found] == [10, None, None]


def test_the_best_is_the_last_that_was_the_best_so_far(
    training: Training, lease: RankLease
) -> None:
    for step, best in [(10, True), (20, True), (30, False)]:
        training.checkpoint(lease, step, best=best)
    assert [_best(training, lease, up_to) for up_to in (9, 10, 19, 20, 99)] == [
        None,
        10,
        10,
        20,
        20,
    ]


def test_a_checkpoint_of_an_earlier_run_is_as_good(training: Training, lease: RankLease) -> None:
    training.checkpoint(lease, 10)
    training.conclude(lease.run_id, LOST)
    (later,) = training.gang(lease.job_id)
    assert training.newest(lease.job_id) == 10
    training.checkpoint(later, 20)
    assert training.newest(lease.job_id) == 20


def test_another_jobs_checkpoint_is_not_looked_at(training: Training, lease: RankLease) -> None:
    training.checkpoint(lease, 10)
    (other,) = training.gang(training.job())
    assert training.newest(other.job_id) is None


def test_a_completion_whose_answer_was_lost_may_be_repeated(
    training: Training, lease: RankLease
) -> None:
    assert training.checkpoint(lease, 10) == training.checkpoint(lease, 10)
    assert len(training.told(lease.job_id, "checkpoint")) == 1


def test_a_part_that_is_told_again_is_replaced(training: Training, lease: RankLease) -> None:
    _add_part(training, lease, 10, key="first")
    _add_part(training, lease, 10, key="second")
    (part,) = _parts(training, lease, 10)
    assert part.files == [{"key": "second"}]


def test_a_host_that_went_on_without_its_part_is_noticed(training: Training) -> None:
    one, two = training.gang(training.job(machines=2), 2)
    _add_part(training, one, 10)
    assert not _has_later(training, one, 10)
    _add_part(training, one, 20)
    assert not _has_later(training, one, 10)  # the first has both; the second may still come
    _add_part(training, two, 20)
    assert _has_later(training, one, 10)
    _add_part(training, two, 10)
    assert not _has_later(training, one, 10)


@pytest.mark.parametrize(
    ("made", "keep", "kept"),
    [
        ("10 20 30", 1, "30"),
        ("10 20 30", 2, "20 30"),
        ("10 20 30", 9, "10 20 30"),
        ("10* 20 30", 1, "10 30"),
        ("10* 20 30", 2, "10 20 30"),
        ("10* 20* 30", 1, "20 30"),
        ("10* 20 30*", 1, "30"),
        ("10 20 30!", 1, "20"),  # a damaged one takes no place
        ("10* 20! 30!", 1, "10"),
        ("10! 20! 30!", 2, ""),
        ("10 20- 30", 1, "30"),
        # Should 30 be found damaged, 20 must find the best that it had then.
        ("10* 20 30*", 2, "10 20 30"),
        ("5* 10* 20 30*", 2, "10 20 30"),
        ("10* 20 30* 40", 2, "30 40"),
    ],
)
def test_the_last_are_kept_with_the_best_that_each_of_them_had(
    training: Training, lease: RankLease, made: str, keep: int, kept: str
) -> None:
    """A star: the best so far. An exclamation mark: damaged. A dash: deleted."""
    gone = set()
    for word in made.split():
        step = int(word.rstrip("*!-"))
        found = training.checkpoint(lease, step, best="*" in word)
        if "!" in word:
            _damage(training, lease, found)
        if "-" in word:
            _delete(training, lease, found)
            gone.add(step)
    with training.sessions.begin() as session:
        doomed = {each.step for each in queries.dispensable(session, lease.job_id, keep=keep)}
    every = {int(word.rstrip("*!-")) for word in made.split()}
    assert every - gone - doomed == {int(step) for step in kept.split()}


def test_a_list_shows_every_checkpoint_newest_first(training: Training, lease: RankLease) -> None:
    ids = [training.checkpoint(lease, step) for step in (10, 20, 30)]
    _damage(training, lease, ids[1])
    _delete(training, lease, ids[0])
    with training.sessions.begin() as session:
        assert [each.step for each in queries.listing(session, lease.job_id)] == [30, 20, 10]


def test_a_checkpoint_that_a_lost_run_completes_never_counts(
    training: Training, lease: RankLease
) -> None:
    _add_part(training, lease, 10)
    training.conclude(lease.run_id, LOST)
    with pytest.raises(LeaseLost):
        training.checkpoint(lease, 10)
    assert training.newest(lease.job_id) is None


def _add_part(training: Training, lease: RankLease, step: int, *, key: str = "k") -> None:
    with training.sessions.begin() as session:
        checkpoints.add_part(session, lease, step=step, files=[{"key": key}])


def _parts(training: Training, lease: RankLease, step: int) -> list[CheckpointPart]:
    with training.sessions.begin() as session:
        return queries.parts(session, lease.run_id, step)


def _has_later(training: Training, lease: RankLease, step: int) -> bool:
    with training.sessions.begin() as session:
        return queries.has_later_part(session, lease.run_id, step)


def _damage(training: Training, lease: RankLease, checkpoint_id: int) -> None:
    with training.sessions.begin() as session:
        checkpoints.mark_damaged(session, lease, checkpoint_id, reason="torn")


def _delete(training: Training, lease: RankLease, checkpoint_id: int) -> None:
    with training.sessions.begin() as session:
        checkpoints.mark_deleted(session, lease, [checkpoint_id])


def _best(training: Training, lease: RankLease, up_to_step: int) -> int | None:
    with training.sessions.begin() as session:
        found = queries.best(session, lease.job_id, up_to_step=up_to_step)
    return found.step if found else None
