"""How a task ended, in words."""

from __future__ import annotations

import pytest
from billiard.exceptions import WorkerLostError

from jobs.queries.unclaimed import Unclaimed
from workers import outcomes
from workers.outcomes import Outcome, TaskState


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            WorkerLostError("Worker exited prematurely: signal 9 (SIGKILL) Job: 3."),
            "its process died: signal 9 (SIGKILL)",
        ),
        (
            WorkerLostError("Worker exited prematurely: exitcode 71."),
            "its process died: exitcode 71",
        ),
        (WorkerLostError("gone"), "its process died: gone"),
        (SystemExit(3), "its process ended itself: exit code 3"),
        (ValueError("no"), None),
    ],
)
def test_a_death_is_told_in_words(error: BaseException, words: str | None) -> None:
    assert outcomes.death(error) == words


@pytest.mark.parametrize(
    ("superseded", "state"), [(True, TaskState.SUPERSEDED), (False, TaskState.STOPPED)]
)
def test_a_late_message_is_superseded(superseded: bool, state: TaskState) -> None:  # noqa: FBT001
    found = outcomes.unclaimed(Unclaimed("the chunk is done", superseded=superseded))
    assert found == Outcome(state, "not claimed: the chunk is done")
    with pytest.raises(outcomes.Undone, match="the chunk is done"):
        outcomes.raise_unless_done(found)


@pytest.mark.parametrize(
    ("superseded", "state"), [(True, TaskState.SUPERSEDED), (False, TaskState.STOPPED)]
)
def test_work_that_was_taken_over_is_superseded(superseded: bool, state: TaskState) -> None:  # noqa: FBT001
    why = Unclaimed("another process has the chunk", superseded=superseded)
    assert outcomes.stopped(why, "it was taken over") == Outcome(
        state, "stopped: it was taken over"
    )
