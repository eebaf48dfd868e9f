"""What became of a run, from what its ranks say: which rank is to blame, and who pays for it.

When one rank dies its peers fail a moment later, with errors about their connection. So a run is
not judged by the first rank that reports, but when all have ended: then the one is named that no
other rank's death explains.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from jobs.states import RankState, RunState


class Outcome(StrEnum):
    """How a rank ended."""

    DONE = "done"  # its work is finished
    STOPPED = "stopped"  # asked to, after a checkpoint
    ENDED = "ended"  # by its agent: the run is over, or a checkpoint took longer than the grace
    FAULT = "fault"  # the job itself is at fault: data, base, recipe
    CRASHED = "crashed"  # its processes ended by themselves
    STALLED = "stalled"  # no step within the limit
    SILENT = "silent"  # its lease ran out, or its agent was started anew
    ABSENT = "absent"  # it never began
    UNREADY = "unready"  # what it needs could not be brought to its host


class Fault(StrEnum):
    """Whose budget of restarts a lost run is counted against."""

    INFRASTRUCTURE = "infrastructure"
    JOB = "job"


@dataclass(frozen=True)
class RankFacts:
    """One rank as the ledger has it."""

    rank: int
    host: str
    state: RankState
    outcome: Outcome | None = None  # set if and only if it has ended
    exit_code: int | None = None
    error_code: str | None = None
    error: str | None = None
    lease_expires_at: datetime | None = None
    progress_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True)
class Verdict:
    """How a run ends."""

    state: RunState
    reason: str | None = None
    rank: int | None = None  # to blame
    code: str | None = None  # of a fault of the job
    fault: Fault | None = None  # of a lost run


WELL = frozenset({Outcome.DONE, Outcome.STOPPED, Outcome.ENDED})

_PEER = re.compile(
    r"connection (was )?(closed|reset|refused)|connect(ion)? (error|timed? ?out)|broken pipe|gloo|"
    r"nccl|tcpstore|Dist(Network|Store|Backend)Error|rendezvous|peer|address already in use|"
    r"no route to host|network is unreachable",
    re.IGNORECASE,
)
"""Words of errors that another rank's death, or the network, explains."""

_KILLED = re.compile(r"died with <Signals\.\w+: (\d+)>|exitcode\s*: -(\d+) ")
"""How launchers tell of a process that a signal ended; they themselves end with 1 then."""

_LAUNCHER = re.compile(
    r"^(E\d{4} [\d:.]+ +\d+ torch/distributed/elastic"
    r"|Traceback \(most recent call last\):\n(  File \"<frozen runpy>.*\n)+"
    r"  File \".*accelerate/commands/launch\.py\")",
    re.MULTILINE,
)
"""Where a launcher begins to tell at length that its processes have failed."""

_BLAME = (
    Outcome.FAULT,
    Outcome.SILENT,
    Outcome.ABSENT,
    Outcome.UNREADY,
    Outcome.STALLED,
    Outcome.CRASHED,
)
TAIL = 400
"""Characters of a rank's error that a reason repeats: the end says most."""


def overdue(
    rank: RankFacts, *, now: datetime, formed_at: datetime, forming: timedelta
) -> Outcome | None:
    """How a rank that says nothing has ended; ``None`` for one that may still."""
    if rank.state is RankState.PENDING and now - formed_at > forming:
        return Outcome.ABSENT
    expires = rank.lease_expires_at
    if rank.state is RankState.LEASED and expires is not None and expires < now:
        return Outcome.SILENT
    return None


def has_broken(ranks: Sequence[RankFacts]) -> bool:
    """Whether a rank has ended badly: the others must end too."""
    return any(rank.outcome is not None and rank.outcome not in WELL for rank in ranks)


def judge(ranks: Sequence[RankFacts], *, stop_reason: str | None) -> Verdict | None:
    """How the run ends; ``None`` while a rank lives."""
    if any(rank.state is not RankState.ENDED for rank in ranks):
        return None
    if not has_broken(ranks):
        if stop_reason is not None:
            return Verdict(RunState.PREEMPTED, reason=stop_reason)
        why = "its ranks ended before the work was done, and nobody had asked them to"
        return Verdict(RunState.LOST, reason=why, fault=Fault.INFRASTRUCTURE)
    culprit = min((rank for rank in ranks if rank.outcome not in WELL), key=_blame)
    reason = _words(culprit)
    if culprit.outcome is Outcome.FAULT:
        return Verdict(
            RunState.FAILED, reason=culprit.error, rank=culprit.rank, code=culprit.error_code
        )
    return Verdict(RunState.LOST, reason=reason, rank=culprit.rank, fault=_fault(culprit))


def _blame(rank: RankFacts) -> tuple[int, bool, bool, float, int]:
    """The most telling first: see ``_BLAME``; then one that blames no peer; then one killed.

    A library that misses a peer may abort its process: that it was killed says less than its words.
    """
    assert rank.outcome is not None
    last = rank.progress_at if rank.outcome is Outcome.STALLED else rank.ended_at
    return (
        _BLAME.index(rank.outcome),
        _blames_a_peer(rank),
        _signal(rank) is None,
        last.timestamp() if last else 0.0,
        rank.rank,
    )


def _fault(rank: RankFacts) -> Fault:
    """A crash is the job's own unless a signal, a peer or the network explains it."""
    own = rank.outcome is Outcome.CRASHED and _signal(rank) is None and not _blames_a_peer(rank)
    return Fault.JOB if own else Fault.INFRASTRUCTURE


def _signal(rank: RankFacts) -> int | None:
    """What killed it; shells add 128 to its number, and launchers have it in their words only."""
    code = rank.exit_code
    if code is not None and code < 0:
        return -code
    if code is not None and 128 < code <= 192:  # noqa: PLR2004 - there are 64 signals
        return code - 128
    found = _KILLED.search(rank.error or "")
    return int(found[1] or found[2]) if found else None


def _blames_a_peer(rank: RankFacts) -> bool:
    return rank.error is not None and _PEER.search(rank.error) is not None


def _words(rank: RankFacts) -> str:
    what = {
        Outcome.SILENT: "went silent",
        Outcome.ABSENT: "did not begin in time",
        Outcome.UNREADY: "could not be made ready",
        Outcome.STALLED: "took no step within the limit",
        Outcome.CRASHED: _exit(rank),
    }.get(rank.outcome or Outcome.CRASHED, "failed")
    error = _own_words(rank.error or "")
    said = f"; it said last: {error[-TAIL:].strip()}" if error else ""
    return f"rank {rank.rank} on host {rank.host} {what}{said}"


def _own_words(error: str) -> str:
    """What the rank itself said, without what its launcher has to say about that."""
    report = _LAUNCHER.search(error)
    return (error[: report.start()] if report else error).strip()


def _exit(rank: RankFacts) -> str:
    killed = _signal(rank)
    if killed is not None:
        return f"was killed by signal {killed}"
    return "crashed" if rank.exit_code is None else f"crashed with exit code {rank.exit_code}"
