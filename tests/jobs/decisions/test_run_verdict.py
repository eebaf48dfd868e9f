"""Which rank is to blame when several have died, and whose restart budget pays."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions import run_verdict
from jobs.decisions.run_verdict import (
    NOT_FAILURES,
    Fault,
    RankFacts,
    RankOutcome,
    RunVerdict,
    judge,
    overdue,
)
from jobs.states import RankState, RunState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FORMING = timedelta(seconds=120)

TORCHRUN = """\
E1125 15:55:50.052000 25583 torch/distributed/elastic/multiprocessing/api.py:1002] failed \
(exitcode: {code}) local_rank: 0 (pid: 25685) of binary: /venv/bin/python
Traceback (most recent call last):
  File "<frozen runpy>", line 198, in _run_module_as_main
  File "<frozen runpy>", line 88, in _run_code
  File "/venv/lib/python3.11/site-packages/accelerate/commands/launch.py", line 1423, in <module>
    main()
  File "/venv/lib/python3.11/site-packages/torch/distributed/launcher/api.py", line 383, in launch
    raise ChildFailedError(
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
Root Cause (first observed failure):
[0]:
  rank      : 1 (local_rank: 0)
  exitcode  : {code} (pid: 25685) {signal}
  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html
============================================================
"""
"""What ``accelerate launch`` writes at its end; shortened."""

ACCELERATE = """\
Traceback (most recent call last):
  File "<frozen runpy>", line 198, in _run_module_as_main
  File "<frozen runpy>", line 88, in _run_code
  File "/venv/lib/python3.11/site-packages/accelerate/commands/launch.py", line 1423, in <module>
    main()
subprocess.CalledProcessError: Command '['python', 's.py']' died with <Signals.SIGKILL: 9>.
"""
"""The same for a single process."""

OWN = "[rank1]: ValueError: the data are odd\n"
PEER = (
    "[rank0]: RuntimeError: [.../gloo/tcp/pair.cc:553] Connection closed by peer [10.0.0.2]:919\n"
)


def ended(rank: int, outcome: RankOutcome, *, after: float = 0.0, **facts: Any) -> RankFacts:
    """A rank that ended ``after`` seconds later than the first."""
    at = NOW + timedelta(seconds=after)
    defaults: dict[str, Any] = {"progress_at": NOW, "ended_at": at, "host": f"host-{rank}"}
    return RankFacts(rank=rank, state=RankState.ENDED, outcome=outcome, **(defaults | facts))


def crashed(rank: int, error: str | None = OWN, *, code: int | None = 1, **facts: Any) -> RankFacts:
    return ended(rank, RankOutcome.CRASHED, exit_code=code, error=error, **facts)


def launched(error: str = "", *, code: int = 1) -> str:
    """The log of a launcher whose process printed ``error`` and exited with ``code``."""
    return error + TORCHRUN.format(code=code, signal="(SIGKILL)" if code < 0 else "")


def verdict(
    *ranks: RankFacts, stop_reason: str | None = "another rank of the run failed"
) -> RunVerdict:
    decision = judge(ranks, stop_reason=stop_reason)
    assert decision is not None
    return decision


INFRASTRUCTURE, JOB = Fault.INFRASTRUCTURE, Fault.JOB

CULPRITS = {
    "a host that went silent": (ended(1, RankOutcome.SILENT, after=30), INFRASTRUCTURE),
    "one that never began": (ended(1, RankOutcome.ABSENT, after=120), INFRASTRUCTURE),
    "one that could not be made ready": (
        ended(1, RankOutcome.UNREADY, after=9, error="OSError: disk full"),
        INFRASTRUCTURE,
    ),
    "one that hung": (
        ended(1, RankOutcome.STALLED, after=9, progress_at=NOW - timedelta(seconds=5)),
        INFRASTRUCTURE,
    ),
    "one that the system killed": (crashed(1, None, code=-9, after=9), INFRASTRUCTURE),
    "one that a shell saw killed": (crashed(1, None, code=137, after=9), INFRASTRUCTURE),
    "one that torchrun saw killed": (crashed(1, launched(code=-9), after=9), INFRASTRUCTURE),
    "one that accelerate saw killed": (crashed(1, ACCELERATE, after=9), INFRASTRUCTURE),
    "one with an error of its own": (crashed(1, launched(OWN), after=9), JOB),
}
VICTIMS = {
    "missed its peer": crashed(0, launched(PEER)),
    "was aborted by its library": crashed(0, launched(PEER, code=-6)),
    "was ended": ended(0, RankOutcome.ABORTED),
    "had stopped": ended(0, RankOutcome.STOPPED),
    "was done": ended(0, RankOutcome.DONE),
}


@pytest.mark.parametrize(("culprit", "victim"), list(product(CULPRITS, VICTIMS)))
def test_the_culprit_is_named_and_not_its_victim(culprit: str, victim: str) -> None:
    guilty, fault = CULPRITS[culprit]
    decision = verdict(VICTIMS[victim], guilty)
    assert (decision.state, decision.rank, decision.fault) == (RunState.LOST, 1, fault)
    assert decision.reason is not None
    assert decision.reason.startswith("rank 1 on host host-1 ")


@given(
    st.sampled_from(sorted(CULPRITS)),
    st.lists(st.sampled_from(sorted(VICTIMS)), max_size=4),
    st.lists(st.floats(0, 60), min_size=5, max_size=5),
    st.integers(0, 4),
    st.randoms(use_true_random=False),
)
def test_the_verdict_depends_neither_on_which_rank_ends_first_nor_on_rank_numbers(
    culprit: str, victims: list[str], ends: list[float], index: int, random: Any
) -> None:
    guilty, fault = CULPRITS[culprit]
    gang = [VICTIMS[victim] for victim in victims]
    index = min(index, len(gang))
    gang.insert(index, guilty)
    ranks = [
        dataclasses.replace(each, rank=rank, ended_at=NOW + timedelta(seconds=ends[rank]))
        for rank, each in enumerate(gang)
    ]
    random.shuffle(ranks)
    decision = verdict(*ranks)
    assert (decision.rank, decision.fault) == (index, fault)


@given(st.lists(st.sampled_from([*CULPRITS, *VICTIMS]), min_size=1, max_size=5), st.data())
def test_the_order_in_which_ranks_are_read_never_matters(
    names: list[str], data: st.DataObject
) -> None:
    known = {name: fact for name, (fact, _) in CULPRITS.items()} | VICTIMS
    ranks = [dataclasses.replace(known[name], rank=rank) for rank, name in enumerate(names)]
    shuffled = data.draw(st.permutations(ranks))
    assert judge(shuffled, stop_reason="x") == judge(ranks, stop_reason="x")


def test_a_fault_of_the_job_itself_fails_the_run_with_its_own_message() -> None:
    fault = ended(
        1, RankOutcome.FAULT, error_code="one_label", error="there is one label only", after=9
    )
    for other in [guilty for guilty, _ in CULPRITS.values()]:
        decision = verdict(dataclasses.replace(other, rank=0), fault)
        assert decision == RunVerdict(
            RunState.FAILED, reason="there is one label only", rank=1, code="one_label"
        )


def test_of_two_that_hung_the_one_that_hung_first_is_to_blame() -> None:
    first = ended(1, RankOutcome.STALLED, after=9, progress_at=NOW - timedelta(seconds=3))
    assert verdict(ended(0, RankOutcome.STALLED), first).rank == 1


def test_of_two_with_errors_of_their_own_the_first_is_to_blame() -> None:
    assert verdict(crashed(0, after=2), crashed(1, after=1)).rank == 1


def test_ranks_that_all_lose_their_peers_are_charged_to_the_infrastructure() -> None:
    decision = verdict(crashed(0, launched(PEER)), crashed(1, launched(PEER)))
    assert (decision.state, decision.fault) == (RunState.LOST, INFRASTRUCTURE)


@pytest.mark.parametrize(
    "error",
    [
        "RuntimeError: Connection closed by peer",
        "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp",
        "DistNetworkError: The client socket has timed out after 60000ms while trying to connect",
        "DistStoreError: Timed out after 61 seconds waiting for clients. 1/2 clients joined.",
        "[Errno 98] Address already in use",
        "ConnectionResetError: [Errno 104] Connection reset by peer",
        "BrokenPipeError: [Errno 32] Broken pipe",
        "OSError: [Errno 113] No route to host",
    ],
)
def test_an_error_that_the_network_explains_is_not_charged_to_the_job(error: str) -> None:
    assert verdict(crashed(0, launched(error + "\n"))).fault is INFRASTRUCTURE


@pytest.mark.parametrize("code", [1, 2, 64, 70, 128, 255, None])
def test_a_crash_that_nothing_explains_is_charged_to_the_job(code: int | None) -> None:
    assert verdict(crashed(0, OWN, code=code)).fault is JOB


@pytest.mark.parametrize(
    ("rank", "words"),
    [
        (ended(1, RankOutcome.SILENT), "went silent"),
        (ended(1, RankOutcome.ABSENT), "did not begin in time"),
        (
            ended(1, RankOutcome.UNREADY, error="disk full"),
            "could not be made ready; its last output: disk full",
        ),
        (ended(1, RankOutcome.STALLED), "took no step within the limit"),
        (crashed(1, None, code=-9), "was killed by signal 9"),
        (crashed(1, None, code=143), "was killed by signal 15"),
        (crashed(1, launched(code=-9)), "was killed by signal 9"),
        (crashed(1, ACCELERATE), "was killed by signal 9"),
        (crashed(1, None, code=255), "crashed with exit code 255"),
        (crashed(1, None, code=None), "crashed"),
        (
            crashed(1, launched(OWN)),
            "crashed with exit code 1; its last output: [rank1]: ValueError: the data are odd",
        ),
    ],
)
def test_the_reason_names_rank_and_host_and_its_last_output(rank: RankFacts, words: str) -> None:
    assert verdict(rank).reason == f"rank 1 on host host-1 {words}"


def test_a_reason_keeps_the_end_of_a_long_log() -> None:
    reason = verdict(crashed(0, "first\n" * 9_000 + OWN)).reason or ""
    assert reason.endswith("the data are odd")
    assert len(reason) < 600


@pytest.mark.parametrize("outcome", sorted(set(RankOutcome) - NOT_FAILURES))
@pytest.mark.parametrize("stop_reason", [None, "the job was paused"])
def test_every_failed_rank_leads_to_a_verdict_with_a_reason(
    outcome: RankOutcome, stop_reason: str | None
) -> None:
    decision = verdict(
        ended(0, outcome, error="words"), ended(1, RankOutcome.ABORTED), stop_reason=stop_reason
    )
    assert decision.state is (RunState.FAILED if outcome is RankOutcome.FAULT else RunState.LOST)
    assert decision.reason
    assert (decision.fault is None) == (outcome is RankOutcome.FAULT)


@pytest.mark.parametrize("outcomes", list(product(sorted(NOT_FAILURES), repeat=2)))
def test_a_run_that_stopped_on_request_is_preempted(outcomes: tuple[RankOutcome, ...]) -> None:
    ranks = [ended(rank, outcome) for rank, outcome in enumerate(outcomes)]
    decision = verdict(*ranks, stop_reason="the job was paused")
    assert decision == RunVerdict(RunState.PREEMPTED, reason="the job was paused")


def test_a_run_that_ended_unasked_and_unfinished_is_lost() -> None:
    decision = verdict(ended(0, RankOutcome.DONE), ended(1, RankOutcome.ABORTED), stop_reason=None)
    assert (decision.state, decision.fault) == (RunState.LOST, INFRASTRUCTURE)


@pytest.mark.parametrize("state", [RankState.PENDING, RankState.LEASED])
def test_there_is_no_verdict_while_a_rank_is_alive(state: RankState) -> None:
    alive = RankFacts(rank=1, host="host-1", state=state)
    assert judge([ended(0, RankOutcome.SILENT), alive], stop_reason=None) is None


def test_a_run_has_a_failed_rank_even_if_others_are_alive() -> None:
    alive = RankFacts(rank=1, host="host-1", state=RankState.LEASED)
    assert run_verdict.has_failed_rank([crashed(0), alive])
    assert not run_verdict.has_failed_rank([ended(0, RankOutcome.DONE), alive])


@pytest.mark.parametrize(
    ("state", "formed", "expires", "outcome"),
    [
        (RankState.PENDING, 119, None, None),
        (RankState.PENDING, 121, None, RankOutcome.ABSENT),
        (RankState.LEASED, 10_000, 1, None),
        (RankState.LEASED, 1, -1, RankOutcome.SILENT),
        (RankState.ENDED, 10_000, None, None),
    ],
)
def test_a_rank_that_is_silent_for_too_long_has_ended(
    state: RankState, formed: int, expires: int | None, outcome: RankOutcome | None
) -> None:
    lease = None if expires is None else NOW + timedelta(seconds=expires)
    rank = RankFacts(rank=0, host="h", state=state, lease_expires_at=lease)
    formed_at = NOW - timedelta(seconds=formed)
    assert overdue(rank, now=NOW, formed_at=formed_at, forming=FORMING) is outcome
