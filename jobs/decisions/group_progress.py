"""The state and progress of a group, from those of its members."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from jobs.states import FINAL, JobState

_MOVING = frozenset({JobState.PLANNING, JobState.RUNNING, JobState.FINALIZING})
_WORST_FIRST = (JobState.FAILED, JobState.EXPIRED, JobState.CANCELLED, JobState.SUCCEEDED)


@dataclass(frozen=True)
class Amount:
    """Work in one unit: rows of bulk jobs, or steps of training."""

    done: int
    total: int | None  # null: not known yet


@dataclass(frozen=True)
class MemberProgress:
    """How far one member is."""

    state: JobState
    rows: Amount | None = None  # null: it trains
    steps: Amount | None = None  # null: it is bulk work
    eta_seconds: float | None = None
    skipped: bool = False  # it was cancelled because it had no rows

    @property
    def share(self) -> float:
        """Of its work, what is done, 0 to 1; of one that has ended, all."""
        amount = self.rows or self.steps
        if self.state in FINAL:
            return 1.0
        if amount is None or not amount.total:
            return 0.0
        return min(1.0, amount.done / amount.total)


@dataclass(frozen=True)
class GroupProgress:
    """One group as if it were a job. Sums are over members whose totals are known."""

    state: JobState
    share: float  # 0 to 1, of all members alike
    ended: int
    jobs: int
    rows: Amount
    steps: Amount
    eta_seconds: float | None  # null: a member waits, or its ETA is not known


def sum_up(members: Sequence[MemberProgress]) -> GroupProgress:
    """The progress of a group of these members, of which there is at least one."""
    active = [each for each in members if each.state not in FINAL]
    etas = [each.eta_seconds for each in active if each.eta_seconds is not None]
    return GroupProgress(
        state=state_of(deciding((each.state, each.skipped) for each in members)),
        share=sum(each.share for each in members) / len(members),
        ended=len(members) - len(active),
        jobs=len(members),
        rows=_sum([each.rows for each in members]),
        steps=_sum([each.steps for each in members]),
        eta_seconds=max(etas) if etas and len(etas) == len(active) else None,
    )


def deciding(members: Iterable[tuple[JobState, bool]]) -> frozenset[JobState]:
    """The states that decide about a group, of the state of each member and whether it was skipped.

    Members that were skipped, for there was nothing for them to do, do not, unless all were.
    """
    found = set(members)
    not_skipped = {(state, skipped) for state, skipped in found if not skipped}
    return frozenset(state for state, _ in not_skipped or found)


def state_of(states: Collection[JobState]) -> JobState:
    """Running while any member is or some have ended; at the end the worst of their ends."""
    active = {state for state in states if state not in FINAL}
    if not active:
        return next(state for state in _WORST_FIRST if state in states)
    if active & _MOVING:
        return JobState.RUNNING
    if active in ({JobState.PAUSED}, {JobState.CANCELLING}):
        return next(iter(active))
    some_ended = len(active) < len(set(states))
    return JobState.RUNNING if some_ended else JobState.QUEUED


def _sum(amounts: Sequence[Amount | None]) -> Amount:
    """What is known; the total is null while one member's is not known."""
    ours = [amount for amount in amounts if amount is not None]
    totals = [amount.total for amount in ours]
    known = [total for total in totals if total is not None]
    return Amount(
        done=sum(amount.done for amount in ours),
        total=sum(known) if len(known) == len(totals) else None,
    )
