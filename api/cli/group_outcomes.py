"""How a group that was watched ended, in the words and exit codes of ``outcomes``.

A member that failed, was cancelled or expired decides; then a promotion that did not happen; then a
member without rows. An alias counts as moved if any member has moved it: of a sweep the best has. A
member that failed because another one did not succeed ended as that one did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from api.cli import outcomes
from api.cli.failures import FAILED, Failure
from api.cli.outcomes import CODES, Outcome
from api.client import FINAL
from jobs.decisions import dependencies

Group = Mapping[str, Any]
Member = Mapping[str, Any]

MOST_NAMED = 3
"""Members that one sentence names."""

WORST_FIRST = (Outcome.FAILED, Outcome.EXPIRED, Outcome.CANCELLED)
"""Outcomes of a member that are those of its group, whatever the others came to."""


def of(group: Group) -> Outcome | None:
    """How the group ended; ``None``: it has not."""
    if group["state"] not in FINAL:
        return None
    members = group["members"]
    found = {_of_member(member) for member in members if not _follows(member)}
    worst = next((outcome for outcome in WORST_FIRST if outcome in found), None)
    if worst is None and Outcome.EMPTY not in found and any(map(_follows, members)):
        worst = Outcome.FAILED  # for a job outside of the group
    if worst is not None:
        return worst
    if rejected(group):
        return Outcome.NOT_PROMOTED
    return Outcome.EMPTY if Outcome.EMPTY in found else Outcome.SUCCEEDED


def rejected(group: Group) -> list[Member]:
    """Members whose version was not promoted to an alias that no other member moved either."""
    asked = [member for member in group["members"] if member["promotion"] is not None]
    moved = {_alias(member) for member in asked if member["promotion"]["promoted"]}
    return [member for member in asked if _alias(member) not in moved]


def told(group: Group) -> dict[str, Any]:
    """The group with its ``outcome`` and those of its members, for JSON."""
    members = [{**member, "outcome": _of_member(member)} for member in group["members"]]
    return {**group, "members": members, "outcome": of(group)}


def check(group: Group) -> None:
    """Raise the ``Failure`` of a group that ended in any other way than it was meant to."""
    outcome = of(group)
    if outcome is Outcome.SUCCEEDED:
        return
    code = FAILED if outcome is None else CODES.get(outcome, FAILED)
    raise Failure(_sentence(group, outcome), code=code)


def _of_member(member: Member) -> Outcome | None:
    """How a member ended: a group lists it shorter than a job."""
    rows = member["rows"]
    return outcomes.of(
        {
            "state": member["state"],
            "error": member["error"],
            "skipped": member.get("skipped"),
            "training": {} if rows is None else None,
            "rows": rows or {"total": None},
            "output": {"promotion": member["promotion"]},
        }
    )


def _follows(member: Member) -> bool:
    """Whether it failed only because a job that it needs did not succeed."""
    return (member["error"] or {}).get("code") == dependencies.FAILED


def _alias(member: Member) -> tuple[str, str]:
    """The alias that the member's version was meant to take."""
    return str(member["registered"]).partition("@")[0], member["promotion"]["alias"]


def _sentence(group: Group, outcome: Outcome | None) -> str:
    if outcome is Outcome.NOT_PROMOTED:
        return _not_promoted(rejected(group))
    if outcome is Outcome.EMPTY:
        empty = [each for each in group["members"] if _of_member(each) is Outcome.EMPTY]
        return f"{group['id']}: {_listed([each['member'] for each in empty])} had no rows"
    others = [each for each in group["members"] if _of_member(each) in (None, *WORST_FIRST)]
    named = _listed([f"{each['member']} {each['state']}" for each in others])
    return (
        f"{group['id']} {outcomes.ended(group['state'])}: {named}; retry what failed with "
        f"`nightshift jobs retry {group['id']}`"
    )


def _not_promoted(lost: Sequence[Member]) -> str:
    last = lost[-1]
    reason = f"{last['registered']} was not promoted: {last['promotion']['reason']}"
    if len(lost) == 1:
        return reason
    return f"{len(lost)} versions were not promoted; the last of them: {reason}"


def _listed(words: Sequence[str]) -> str:
    more = len(words) - MOST_NAMED
    return f"{', '.join(words[:MOST_NAMED])}{f' and {more} more' if more > 0 else ''}"
