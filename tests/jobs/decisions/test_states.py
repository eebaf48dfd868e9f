"""The tables of states are closed, and every path ends."""

from __future__ import annotations

import itertools

import pytest

from jobs import states
from jobs.errors import Conflict
from jobs.states import ACTIVE, CHUNK_MOVES, FINAL, JOB_MOVES, ChunkState, JobState


def test_every_state_has_its_row_in_the_tables() -> None:
    assert set(JOB_MOVES) == set(JobState)
    assert set(CHUNK_MOVES) == set(ChunkState)


def test_final_and_active_are_all_states_and_share_none() -> None:
    assert set(JobState) == FINAL | ACTIVE
    assert not FINAL & ACTIVE


@pytest.mark.parametrize("state", sorted(ACTIVE))
def test_an_active_job_can_come_to_an_end(state: JobState) -> None:
    seen = {state}
    while not seen & FINAL:
        further = {target for each in seen for target in JOB_MOVES[each]} - seen
        assert further, f"{state} leads to no end"
        seen |= further


@pytest.mark.parametrize("state", sorted(ACTIVE - {JobState.CANCELLING}))
def test_an_active_job_can_be_cancelled_and_expires(state: JobState) -> None:
    assert JobState.CANCELLING in JOB_MOVES[state]
    assert JobState.EXPIRED in JOB_MOVES[state]


@pytest.mark.parametrize("state", sorted(FINAL))
def test_only_a_retry_leaves_a_final_state(state: JobState) -> None:
    assert all(reason.startswith("retry") for reason in JOB_MOVES[state].values())


def test_every_state_but_the_first_can_be_reached() -> None:
    reached = {target for moves in JOB_MOVES.values() for target in moves}
    assert reached == set(JobState)  # a retry brings back even the first


@pytest.mark.parametrize("target", sorted(JobState))
def test_sources_are_the_table_read_backwards(target: JobState) -> None:
    assert states.sources(target) == {state for state in JobState if target in JOB_MOVES[state]}


def test_a_move_is_refused_if_and_only_if_it_is_not_in_the_table() -> None:
    for state, target in itertools.product(JobState, JobState):
        if target in JOB_MOVES[state]:
            states.check_move(state, target)
        else:
            with pytest.raises(Conflict, match=f"{state} cannot become {target}"):
                states.check_move(state, target)


@pytest.mark.parametrize(
    ("started", "planned", "state"),
    [
        (False, False, JobState.QUEUED),
        (True, False, JobState.PLANNING),
        (True, True, JobState.RUNNING),
    ],
)
def test_a_job_goes_on_where_it_was(started: bool, planned: bool, state: JobState) -> None:  # noqa: FBT001
    assert states.resumed(planning_started=started, planned=planned) is state
