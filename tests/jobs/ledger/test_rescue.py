"""Chunks whose worker died: again, in halves, condemned; no row is lost or doubled on the way."""

from __future__ import annotations

import math
from itertools import count

import pytest

from jobs.decisions.crash_policy import CrashVerdict, Phase
from jobs.errors import LeaseLost
from jobs.ledger import rescue, step_leases
from jobs.states import ChunkState, JobState
from jobs.tables import Chunk
from tests.jobs.ledger.building import LEASE, RUN_OUT, Ledger


def ranges(ledger: Ledger, job_id: str) -> list[tuple[int, int]]:
    return [(chunk.first_row, chunk.rows) for chunk in ledger.live(job_id)]


def test_a_chunk_whose_worker_died_once_is_to_be_had_again(ledger: Ledger) -> None:
    job_id = ledger.running(10)
    lease = ledger.claimed(ledger.only_chunk(job_id))
    assert ledger.crash(lease) is CrashVerdict.RETRY
    again = ledger.claimed(lease.chunk_id, owner="w2")
    assert (again.fence, again.condemned, again.last_error) == (lease.fence + 1, False, "killed")


def test_a_chunk_that_killed_two_workers_is_cut_in_two(ledger: Ledger) -> None:
    job_id = ledger.running(3, 11)
    chunk_id = ledger.live(job_id)[1].id
    verdicts = [ledger.crash(ledger.claimed(chunk_id)) for _ in range(2)]
    assert verdicts == [CrashVerdict.RETRY, CrashVerdict.SPLIT]
    assert ranges(ledger, job_id) == [(0, 3), (3, 5), (8, 6)]
    assert ledger.claim(chunk_id) is None


def test_a_row_that_kills_is_found_and_its_neighbours_are_unharmed(ledger: Ledger) -> None:
    job_id, rows, deadly = ledger.running(100), 100, 61
    deaths = count(1)
    while pending := _pending(ledger, job_id):
        lease = ledger.claimed(pending[0].id)
        if lease.first_row <= deadly < lease.first_row + lease.rows and not lease.condemned:
            ledger.crash(lease)
            died = next(deaths)
        else:
            ledger.commit(lease, failed=int(lease.condemned))
    chunks = ledger.live(job_id)
    assert [(chunk.first_row, chunk.rows) for chunk in chunks if chunk.condemned] == [(deadly, 1)]
    assert sum(chunk.rows for chunk in chunks) == rows
    assert died <= math.ceil(math.log2(rows)) + 3


def test_the_second_death_at_load_fails_the_job(ledger: Ledger) -> None:
    job_id = ledger.running(10)
    chunk_id = ledger.only_chunk(job_id)
    assert ledger.die_at_load(ledger.claimed(chunk_id)) is CrashVerdict.RETRY
    assert ledger.die_at_load(ledger.claimed(chunk_id)) is CrashVerdict.FAIL_JOB
    job = ledger.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "model_load_timeout")


def test_a_death_at_load_is_not_added_to_the_crash_that_a_half_inherits(ledger: Ledger) -> None:
    job_id = ledger.running(10)
    chunk_id = ledger.only_chunk(job_id)
    for _ in range(2):
        ledger.crash(ledger.claimed(chunk_id))
    half = ledger.live(job_id)[0]
    assert ledger.die_at_load(ledger.claimed(half.id)) is CrashVerdict.RETRY
    assert ledger.job(job_id).state is JobState.RUNNING


def test_a_death_at_load_suspects_no_row(ledger: Ledger) -> None:
    job_id = ledger.running(1)
    chunk_id = ledger.only_chunk(job_id)
    ledger.die_at_load(ledger.claimed(chunk_id))
    assert ledger.crash(ledger.claimed(chunk_id)) is CrashVerdict.RETRY
    assert not ledger.claimed(chunk_id).condemned


@pytest.mark.parametrize("phase", [Phase.TEMPLATE, Phase.TOKENIZER])
def test_one_death_over_a_first_text_fails_the_job(ledger: Ledger, phase: Phase) -> None:
    job_id = ledger.running(10)
    lease = ledger.claimed(ledger.only_chunk(job_id))
    assert ledger.die_at_load(lease, phase=phase) is CrashVerdict.FAIL_JOB
    assert ledger.job(job_id).error_code == f"{phase}_timeout"


def test_halves_read_their_rows_at_the_right_place_of_the_shard(ledger: Ledger) -> None:
    job_id = ledger.accept()
    ledger.plan(job_id, (4,), (2, 9))
    chunk_id = ledger.live(job_id)[2].id
    for _ in range(2):
        ledger.crash(ledger.claimed(chunk_id))
    halves = [ledger.claimed(chunk.id) for chunk in ledger.live(job_id)[2:]]
    assert [(half.shard_key, half.offset, half.first_row, half.rows) for half in halves] == [
        ("shard 1", 2, 6, 4),
        ("shard 1", 6, 10, 5),
    ]


def test_a_rescue_takes_only_leases_that_ran_out(ledger: Ledger) -> None:
    job_id = ledger.running(5, 5)
    alive, dead = ledger.live(job_id)
    ledger.claimed(alive.id)
    ledger.claimed(dead.id, duration=RUN_OUT)
    ledger.rescue()
    assert [chunk.state for chunk in ledger.live(job_id)] == [
        ChunkState.LEASED,
        ChunkState.PENDING,
    ]


def test_a_crash_is_counted_once_though_it_is_seen_twice(ledger: Ledger) -> None:
    job_id = ledger.running(5)
    lease = ledger.claimed(ledger.only_chunk(job_id), duration=RUN_OUT)
    assert ledger.crash(lease) is CrashVerdict.RETRY
    assert ledger.crash(lease) is None
    ledger.rescue()
    assert ledger.chunk(lease.chunk_id).crashes == 1


def test_a_crash_of_one_process_says_nothing_about_anothers_chunk(ledger: Ledger) -> None:
    lease = ledger.claimed(ledger.only_chunk(ledger.running(5)), owner="host:1")
    assert ledger.crash(lease, owner="host:2") is None
    ledger.commit(lease)


def test_an_old_fence_is_void_after_a_split(ledger: Ledger) -> None:
    job_id = ledger.running(10)
    chunk_id = ledger.only_chunk(job_id)
    ledger.crash(ledger.claimed(chunk_id))
    late = ledger.claimed(chunk_id, duration=RUN_OUT)
    ledger.rescue()
    with pytest.raises(LeaseLost):
        ledger.commit(late)
    assert ranges(ledger, job_id) == [(0, 5), (5, 5)]


def test_every_death_is_written_down_with_its_rows_and_reason(ledger: Ledger) -> None:
    job_id = ledger.running(5)
    ledger.claimed(ledger.only_chunk(job_id), owner="host:7", duration=RUN_OUT)
    ledger.rescue()
    (event,) = (event for event in ledger.events(job_id) if event.type == "worker_died")
    assert event.data["rows"] == [0, 4]
    assert event.data["verdict"] == "again"
    assert event.data["reason"] == "its worker host:7 went silent"


def test_chunks_of_a_job_that_has_ended_are_taken_back_as_well(ledger: Ledger) -> None:
    job_id = ledger.running(5)
    ledger.claimed(ledger.only_chunk(job_id), duration=RUN_OUT)
    ledger.set(job_id, state=JobState.CANCELLED, finished_at=ledger.job(job_id).created_at)
    ledger.rescue()
    assert ledger.chunk(ledger.only_chunk(job_id)).state is ChunkState.PENDING


def _pending(ledger: Ledger, job_id: str) -> list[Chunk]:
    return [chunk for chunk in ledger.live(job_id) if chunk.state is ChunkState.PENDING]


def test_what_healthy_processes_held_is_free_at_once_and_counts_no_crash(ledger: Ledger) -> None:
    ours = ledger.claimed(ledger.only_chunk(ledger.running(10)), owner="ours")
    step = ledger.accept()
    other = ledger.claimed(ledger.only_chunk(ledger.running(10)), owner="other")
    lease = ledger.claim_step(step, owner="ours")
    assert lease is not None
    with ledger.sessions.begin() as session:
        assert rescue.release(session, owners=["ours"]) == 2
    with ledger.sessions.begin() as session:
        assert not step_leases.renew(session, lease, duration=LEASE)
    with pytest.raises(LeaseLost):
        ledger.commit(ours)
    ledger.commit(other)
    assert ledger.claimed(ours.chunk_id).fence == ours.fence + 1
    assert (ledger.chunk(ours.chunk_id).crashes, ledger.job(step).step_crashes) == (0, 0)
    again = ledger.claim_step(step)
    assert again is not None
    assert again.fence == lease.fence + 2
