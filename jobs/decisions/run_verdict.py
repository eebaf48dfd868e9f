"""How a run ended, judged from its ranks: which rank is to blame, and whose budget pays for it.

When one rank dies, its peers fail a moment later with errors about their connections. So a run is
not judged when the first rank reports but when all have ended. The rank to blame is the one whose
end no other rank's death explains (docs/decisions/0007).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from jobs.states import RankState, RunState


class RankOutcome(StrEnum):
    """How a rank ended."""

    DONE = "done"  # it finished its work
    STOPPED = "stopped"  # on request, after a checkpoint
    ABORTED = "ended"  # by its agent: the run is over, or a checkpoint took longer than the grace
    FAULT = "fault"  # the job itself is at fault: data, base, recipe
    CRASHED = "crashed"  # its processes ended unasked
    STALLED = "stalled"  # no step within the limit
    SILENT = "silent"  # its lease ran out, or its agent was restarted
    ABSENT = "absent"  # it never began
    UNREADY = "unready"  # what it needs could not be fetched to its host


class Fault(StrEnum):
    """Which restart budget a lost run is charged to."""

    INFRASTRUCTURE = "infrastructure"
    JOB = "job"


@dataclass(frozen=True)
class RankFacts:
    """One rank, as recorded in the ledger."""

    rank: int
    host: str
    state: RankState
    outcome: RankOutcome | None = None  # set if and only if it has ended
    exit_code: int | None = None
    error_code: str | None = None
    error: str | None = None
    lease_expires_at: datetime | None = None
    progress_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True)
class RunVerdict:
    """How a run ends."""

    state: RunState
    reason: str | None = None
    rank: int | None = None  # to blame
    code: str | None = None  # of a fault of the job
    fault: Fault | None = None  # of a lost run


NOT_FAILURES = frozenset({RankOutcome.DONE, RankOutcome.STOPPED, RankOutcome.ABORTED})
"""How a rank ends that has not failed."""

_PEER = re.compile(
    r"connection (was )?(closed|reset|refused)|connect(ion)? (error|timed? ?out)|broken pipe|gloo|"
    r"nccl|tcpstore|Dist(Network|Store|Backend)Error|rendezvous|peer|address already in use|"
    r"no route to host|network is unreachable",
    re.IGNORECASE,
)
"""Errors that another rank's death, or the network, explains."""

_KILLED = re.compile(r"died with <Signals\.\w+: (\d+)>|exitcode\s*: -(\d+) ")
"""How a launcher reports a process that was killed by a signal; it exits with 1 itself."""

_LAUNCHER = re.compile(
    r"^(E\d{4} [\d:.]+ +\d+ torch/distributed/elastic"
    r"|Traceback \(most recent call last\):\n(  File \"<frozen runpy>.*\n)+"
    r"  File \".*accelerate/commands/launch\.py\")",
    re.MULTILINE,
)
"""Where a launcher's own report about its failed processes begins."""

_MOST_TELLING = (
    RankOutcome.FAULT,
    RankOutcome.SILENT,
    RankOutcome.ABSENT,
    RankOutcome.UNREADY,
    RankOutcome.STALLED,
    RankOutcome.CRASHED,
)
TAIL = 400
"""Characters from the end of a rank's error that a reason repeats."""


def overdue(
    rank: RankFacts, *, now: datetime, formed_at: datetime, forming: timedelta
) -> RankOutcome | None:
    """How a silent rank has ended; ``None`` for one that still has time."""
    if rank.state is RankState.PENDING and now - formed_at > forming:
        return RankOutcome.ABSENT
    expires = rank.lease_expires_at
    if rank.state is RankState.LEASED and expires is not None and expires < now:
        return RankOutcome.SILENT
    return None


def going_away(host: str) -> str:
    """Why the run of a host that is asked to end is stopped."""
    return f"host {host} is going away"


def has_failed_rank(ranks: Sequence[RankFacts]) -> bool:
    """Whether a rank has failed, so that the others must end too."""
    return any(rank.outcome is not None and rank.outcome not in NOT_FAILURES for rank in ranks)


def judge(ranks: Sequence[RankFacts], *, stop_reason: str | None) -> RunVerdict | None:
    """How the run ends; ``None`` while a rank is alive."""
    if any(rank.state is not RankState.ENDED for rank in ranks):
        return None
    if not has_failed_rank(ranks):
        if stop_reason is not None:
            return RunVerdict(RunState.PREEMPTED, reason=stop_reason)
        why = "its ranks ended before the work was done, without being asked to"
        return RunVerdict(RunState.LOST, reason=why, fault=Fault.INFRASTRUCTURE)
    culprit = min((rank for rank in ranks if rank.outcome not in NOT_FAILURES), key=_blame_order)
    if culprit.outcome is RankOutcome.FAULT:
        return RunVerdict(
            RunState.FAILED, reason=culprit.error, rank=culprit.rank, code=culprit.error_code
        )
    return RunVerdict(
        RunState.LOST, reason=_reason(culprit), rank=culprit.rank, fault=_fault(culprit)
    )


def _blame_order(rank: RankFacts) -> tuple[int, bool, bool, float, int]:
    """By ``_MOST_TELLING``; then ranks that blame no peer; then ranks killed by a signal.

    The error comes before the signal, because a library that loses a peer may abort its process.
    """
    assert rank.outcome is not None
    last = rank.progress_at if rank.outcome is RankOutcome.STALLED else rank.ended_at
    return (
        _MOST_TELLING.index(rank.outcome),
        _blames_a_peer(rank),
        _signal(rank) is None,
        last.timestamp() if last else 0.0,
        rank.rank,
    )


def _fault(rank: RankFacts) -> Fault:
    """A crash is the job's own unless a signal, a peer or the network explains it."""
    own = rank.outcome is RankOutcome.CRASHED and _signal(rank) is None and not _blames_a_peer(rank)
    return Fault.JOB if own else Fault.INFRASTRUCTURE


def _signal(rank: RankFacts) -> int | None:
    """The signal that killed it. Shells add 128 to it; launchers have it only in their report."""
    code = rank.exit_code
    if code is not None and code < 0:
        return -code
    if code is not None and 128 < code <= 192:  # noqa: PLR2004 - there are 64 signals
        return code - 128
    report = _KILLED.search(rank.error or "")
    return int(report[1] or report[2]) if report else None


def _blames_a_peer(rank: RankFacts) -> bool:
    return rank.error is not None and _PEER.search(rank.error) is not None


def _reason(rank: RankFacts) -> str:
    ending = {
        RankOutcome.SILENT: "went silent",
        RankOutcome.ABSENT: "did not begin in time",
        RankOutcome.UNREADY: "could not be made ready",
        RankOutcome.STALLED: "took no step within the limit",
        RankOutcome.CRASHED: _exit(rank),
    }.get(rank.outcome or RankOutcome.CRASHED, "failed")
    error = _without_launcher(rank.error or "")
    last_error = f"; its last output: {error[-TAIL:].strip()}" if error else ""
    return f"rank {rank.rank} on host {rank.host} {ending}{last_error}"


def _without_launcher(error: str) -> str:
    """The rank's own error, without its launcher's report about it."""
    report = _LAUNCHER.search(error)
    return (error[: report.start()] if report else error).strip()


def _exit(rank: RankFacts) -> str:
    signal = _signal(rank)
    if signal is not None:
        return f"was killed by signal {signal}"
    return "crashed" if rank.exit_code is None else f"crashed with exit code {rank.exit_code}"
