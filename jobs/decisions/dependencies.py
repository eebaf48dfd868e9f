"""When a job that needs other jobs may begin, when it never can, and what it says meanwhile.

A dependency is met, broken, or neither yet, by the state of the job that is needed alone. A job
begins when all are met, and ends as ``dependency_failed`` as soon as one is broken.
"""

from __future__ import annotations

import graphlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from jobs.states import FINAL, JobState

FAILED = "dependency_failed"
"""The code of a job that ended because one that it needs did not succeed."""

MOST_NAMED = 3
"""Jobs that one sentence names."""


class DependencyOn(StrEnum):
    """What a job waits for: that the other one succeeds, or that it ends however it does."""

    SUCCESS = "success"
    END = "end"


class Verdict(StrEnum):
    """What happens next to a job that waits for others."""

    BEGIN = "begin"
    WAIT = "wait"
    FAIL = "fail"
    SKIP = "skip"  # a job that it needs had no rows, so that there is nothing for it to do


@dataclass(frozen=True)
class Need:
    """A job that another one needs, as it is now."""

    job_id: str
    name: str | None  # as a person calls it
    on: DependencyOn
    state: JobState
    error_code: str | None  # null: it has not failed
    gives_model: bool = False  # whether the job's model is the version that this one registers
    skipped: bool = False  # whether it was cancelled because it had no rows

    @property
    def is_broken(self) -> bool:
        """Whether it cannot be met any more, unless that job is retried."""
        return self._has_ended_otherwise and not self.skipped

    @property
    def is_skipped(self) -> bool:
        """Whether that job was skipped, and this one with it."""
        return self._has_ended_otherwise and self.skipped

    @property
    def is_met(self) -> bool:
        """Whether the job need not wait for it."""
        return self.state in FINAL and not self._has_ended_otherwise

    @property
    def words(self) -> str:
        """The job, and what state it is in."""
        state = "skipped" if self.skipped else self.state
        how = f"{state}, {self.error_code}" if self.error_code else state
        return f"{self.named} ({how})"

    @property
    def named(self) -> str:
        """The job, as a person calls it and by its id."""
        return f"{self.name} ({self.job_id})" if self.name else self.job_id

    @property
    def _has_ended_otherwise(self) -> bool:
        """Whether its success was needed, and it has ended without."""
        return self.on is DependencyOn.SUCCESS and self.state in FINAL - {JobState.SUCCEEDED}


def judge(needs: Collection[Need]) -> Verdict:
    """What happens next to the job that needs these."""
    if any(need.is_broken for need in needs):
        return Verdict.FAIL
    if any(need.is_skipped for need in needs):
        return Verdict.SKIP
    return Verdict.BEGIN if all(need.is_met for need in needs) else Verdict.WAIT


def failure(needs: Iterable[Need]) -> str:
    """Why the job cannot begin, and what to do."""
    broken = [need for need in needs if need.is_broken or need.is_skipped]
    first = broken[0]
    return (
        f"it needs {_listed([need.words for need in broken])} to succeed; retry that and what "
        f"waits for it: `nightshift jobs retry {first.job_id} --with-dependents`"
    )


def no_rows(needs: Iterable[Need]) -> str:
    """Why there is nothing for the job to do."""
    return (
        f"it needs {_listed([need.named for need in needs if need.is_skipped])}, which had no rows"
    )


def waits_for(needs: Iterable[Need]) -> str | None:
    """The jobs that it still waits for; ``None``: none."""
    waiting = [need for need in needs if need.state not in FINAL]
    parts = [
        f"{_listed([need.words for need in some])} to {ending}"
        for on, ending in ((DependencyOn.SUCCESS, "succeed"), (DependencyOn.END, "end"))
        if (some := [need for need in waiting if need.on is on])
    ]
    return f"it needs {', and '.join(parts)}" if parts else None


def in_order(needed_by: Mapping[str, Collection[str]]) -> list[str]:
    """Jobs by what each needs, every job behind those. Raises ``graphlib.CycleError``."""
    known = {job: [each for each in needs if each in needed_by] for job, needs in needed_by.items()}
    return list(graphlib.TopologicalSorter(known).static_order())


def circle(needed_by: Mapping[str, Collection[str]]) -> list[str] | None:
    """Jobs of which each needs the next, the first again at the end; ``None``: none do."""
    try:
        in_order(needed_by)
    except graphlib.CycleError as error:
        found: list[str] = list(reversed(error.args[1]))
        return found
    return None


def _listed(words: Sequence[str]) -> str:
    named = list(words[:MOST_NAMED])
    if (more := len(words) - MOST_NAMED) > 0:
        named.append(f"{more} more")
    *first, last = named
    return f"{', '.join(first)} and {last}" if first else last
