"""The ranks of a run wait for each other, unless the run is asked to stop."""

from __future__ import annotations

import pytest

from jobs.decisions import run_verdict
from jobs.decisions.run_verdict import RankOutcome
from jobs.queries import gangs
from jobs.states import RunState
from tests.workers.gang.gang_setup import GangSetup
from workers.gang import agent
from workers.gang.rank_lease import HeldRank, RunStopped


def test_a_gang_that_is_stopped_while_it_forms_starts_no_training(setup: GangSetup) -> None:
    training = setup.training
    hosts = training.hosts(2)
    run_id = training.formed(training.job(machines=2), hosts)
    lease = training.claim(run_id, 0, hosts[0].incarnation)
    assert lease is not None
    context = setup.context()
    with HeldRank(lease, context=context) as held:
        work = agent._RankWork(
            held, folder=setup.folder(lease), incarnation=hosts[0].incarnation, context=context
        )
        training.stop(run_id, "checkpoint", "the job was paused")
        with pytest.raises(RunStopped, match="the job was paused"):
            work.rendezvous()
    training.end(lease, RankOutcome.STOPPED)
    with training.sessions.begin() as session:
        verdict = run_verdict.judge(
            gangs.ranks(session, [run_id])[run_id], stop_reason="the job was paused"
        )
    assert verdict is not None
    assert verdict.state is RunState.PREEMPTED
