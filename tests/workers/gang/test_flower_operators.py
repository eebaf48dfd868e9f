"""What an operator does in Flower under a running fine-tune: it goes on from a checkpoint."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from jobs.states import RunState
from jobs.tables import Event, Host
from tests.support.waiting import wait_until
from tests.workers.flower import shown
from tests.workers.gang.trainer import Trainer

pytestmark = pytest.mark.long

USER = shown.LOGIN[0]


ENDLESS = {"epochs": 1_000, "evaluate_steps": 20_000, "checkpoint_steps": 100}
"""It is cancelled at the end: nothing here depends on how fast it trains."""


def test_a_run_is_stopped_and_a_host_shut_down_and_the_job_goes_on(trainer: Trainer) -> None:
    installation = trainer.installation
    with shown.flower(installation, FLOWER_READ_ONLY="false") as flower:
        wait_until(lambda: "flower_worker_online{" in flower.get("/metrics").text, seconds=60)
        job_id = trainer.submit(train=ENDLESS)
        trainer.wait_for_step(job_id, 5)
        task = rank_task(flower, job_id)
        answer = flower.post(f"/api/task/revoke/{task}", params={"terminate": "true"})
        assert answer.status_code == 200, answer.text
        assert "stops behind a checkpoint" in answer.json()["message"]
        wait_for_run(trainer, job_id, 2)
        (rank,) = trainer.live_ranks(job_id)
        name = agent(trainer, rank.host)
        assert flower.post(f"/api/worker/pool/restart/{name}").status_code == 409
        answer = flower.post(f"/api/worker/shutdown/{name}")
        assert answer.status_code == 200, answer.text
        wait_until(lambda: not trainer.hosts[rank.host].alive, seconds=120)
        assert trainer.hosts[rank.host].exit_code == 0
        wait_for_run(trainer, job_id, 3)
    first, second, third = trainer.runs(job_id)
    assert (first.state, second.state, third.state) == (
        *(RunState.PREEMPTED, RunState.PREEMPTED),
        RunState.RUNNING,
    )
    made_by = {each.id: each.run_id for each in trainer.checkpoints(job_id)}
    assert made_by[second.checkpoint_id or 0] == first.id
    assert made_by[third.checkpoint_id or 0] == second.id
    assert told(trainer, job_id) == [("stop the run", USER), ("shut down", USER)]


def wait_for_run(trainer: Trainer, job_id: str, number: int) -> None:
    """Return once the job has this number of runs, and the last of them trains."""
    wait_until(lambda: len(trainer.runs(job_id)) == number, seconds=120)
    begun = trainer.runs(job_id)[-1].step
    trainer.wait_for_step(job_id, begun + 1)


def rank_task(flower: httpx.Client, job_id: str) -> str:
    """The id of the task of the running rank, once Flower has heard of it."""

    def found() -> list[str]:
        tasks: dict[str, dict[str, Any]] = flower.get("/api/tasks", params={"limit": 10_000}).json()
        return [
            task_id
            for task_id, task in tasks.items()
            if task["name"] == "rank" and job_id in task["args"] and task["state"] == "STARTED"
        ]

    wait_until(found, seconds=30)
    (task,) = found()
    return task


def agent(trainer: Trainer, host: str) -> str:
    """The name of a host's agent among Celery's."""
    with trainer.installation.sessions.begin() as session:
        name = session.get_one(Host, host).worker
    assert name is not None
    return name


def told(trainer: Trainer, job_id: str) -> list[tuple[str, str]]:
    """What operators did to the job, and who they were."""
    with trainer.installation.sessions.begin() as session:
        query = sa.select(Event).where(Event.job_id == job_id, Event.type == "operator")
        found = session.scalars(query.order_by(Event.id))
        return [(each.data["action"], each.data["by"]) for each in found]
