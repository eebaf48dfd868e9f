"""What must have happened in the seven nights: pure checks of the facts, which find what did not.

Each check is a sentence, the first line of its docstring, and yields what contradicts it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator

from api.cli.nightly.facts import MODEL, Facts, Fire, Job
from api.cli.nightly.nights import Course, Night
from jobs.decisions import promotion
from jobs.schedules.states import FireOrigin, FireState
from jobs.states import JobState, RunState
from jobs.webhooks.events import EventType

Check = Callable[[Facts], Iterator[str]]


def broken(facts: Facts) -> dict[str, list[str]]:
    """What contradicts each sentence; a sentence that holds has an empty list."""
    return {sentence(check): list(check(facts)) for check in CHECKS}


def sentence(check: Check) -> str:
    """The first line of its docstring."""
    assert check.__doc__ is not None
    return check.__doc__.partition("\n")[0]


def one_fire_a_night(facts: Facts) -> Iterator[str]:
    """Each night is one fire of each schedule, let go by the calendar, with one job."""
    for name, found in (("training", facts.training), ("labelling", facts.labelling)):
        if len(found) != len(facts.nights):
            yield f"{name} has {len(found)} fires for {len(facts.nights)} nights"
        jobs = Counter(fire.job.id for fire in found if fire.job is not None)
        yield from (
            f"{job} is the job of {count} fires" for job, count in jobs.items() if count > 1
        )
        for number, fire in enumerate(found, 1):
            if fire.origin != FireOrigin.CALENDAR:
                yield f"{name} of night {number} is a {fire.origin}"
            if fire.job is None:
                yield f"{name} of night {number} has no job and is {fire.state}: {fire.reason}"


def nights_with_rows_succeed(facts: Facts) -> Iterator[str]:
    """Both jobs of every night with rows succeed."""
    for night in _with(facts, *(course for course in Course if course is not Course.EMPTY)):
        for fire in facts.fires(night):
            if fire is None or fire.state != FireState.SUCCEEDED:
                yield f"night {night.number}: {_words(fire)}"


def an_empty_night_is_skipped(facts: Facts) -> Iterator[str]:
    """A night without rows is skipped, says why, and trains nothing."""
    for night in _with(facts, Course.EMPTY):
        for fire in facts.fires(night):
            if fire is None or fire.state != FireState.SKIPPED or not fire.reason:
                yield f"night {night.number}: {_words(fire)}"
            elif fire.job is not None and (fire.job.runs or fire.job.decision or fire.job.rows):
                yield f"night {night.number}: {fire.job.id} did something"


def every_fine_tune_takes_what_is_new(facts: Facts) -> Iterator[str]:
    """A fine-tune takes its night's objects, and those of nights that were not promoted since."""
    open_objects: dict[str, int] = {}
    for night, job in _trained(facts):
        open_objects |= night.objects
        took = {name: found.rows for name, found in job.took("train").items()}
        if took != open_objects:
            yield f"night {night.number} took {took}, and {open_objects} were new"
        if job.decision is not None and job.decision.promoted:
            open_objects = {}


def rejected_rows_come_again(facts: Facts) -> Iterator[str]:
    """The rows of the rejected night come again, the corrected object in its new version."""
    trained = {night.course: job for night, job in _trained(facts)}
    before, after = trained.get(Course.FLIPPED), trained.get(Course.REPAIRED)
    if before is None or after is None:
        yield "one of the two nights has no job"
        return
    (flipped,) = (night.flipped for night in facts.nights if night.flipped)
    again = after.took("train")
    for name, earlier in before.took("train").items():
        if name not in again:
            yield f"{name} did not come again"
        elif (again[name].version == earlier.version) == (name == flipped):
            yield f"{name} came in version {again[name].version}, and before in {earlier.version}"


def a_gate_compares_on_the_same_rows(facts: Facts) -> Iterator[str]:
    """A gate compares both versions on all checked rows so far, and its numbers decide."""
    checked = 0
    for night, job in _trained(facts):
        if night.course is not Course.OVERLAPPING:  # its rows are added behind its fire time
            checked += night.checked_rows
        found = job.decision
        if found is None or found.value is None or found.incumbent_value is None:
            yield f"night {night.number} has no two numbers"
            continue
        inputs = sum(each.rows for each in job.took("promotion").values())
        if not inputs == found.rows == checked:
            yield (
                f"night {night.number}: {found.rows} rows decided, the query gave {inputs}, and "
                f"there were {checked}"
            )
        better = promotion.is_better(found.metric, new=found.value, old=found.incumbent_value)
        if better != found.promoted:
            yield f"night {night.number}: {found.reason}"


def the_flipped_night_is_refused(facts: Facts) -> Iterator[str]:
    """The gate refuses the night with wrong labels, and promotes some of the others."""
    decided = {night: job.decision for night, job in _trained(facts)}
    promoted = {night.number for night, found in decided.items() if found and found.promoted}
    for night, found in decided.items():
        if found is None:
            yield f"night {night.number} has no decision"
        elif found.promoted and night.course is Course.FLIPPED:
            yield f"night {night.number}: {found.reason}"
    if not promoted - {night.number for night in _with(facts, Course.FLIPPED)}:
        yield "no other night was promoted"


def the_alias_follows_the_decisions(facts: Facts) -> Iterator[str]:
    """The alias has moved with each promotion and at no other time."""
    promoted = [(each.version, each.job) for each in facts.decisions if each.promoted]
    moves = [(move.version, move.job) for move in facts.moves]
    if moves != promoted:
        yield f"it moved to {moves}, and {promoted} were promoted"


def the_killed_night_goes_on(facts: Facts) -> Iterator[str]:
    """Killed processes are replaced, and their fine-tune goes on from its checkpoint to its end."""
    for name, pid in facts.told.killed.items():
        if facts.told.successors.get(name) in {None, pid}:
            yield f"{name} was not started again"
    if not facts.told.killed:
        yield "nothing was killed"
    for night, job in _trained(facts):
        states = [run.state for run in job.runs]
        if states[-1:] != [RunState.SUCCEEDED]:
            yield f"the runs of night {night.number} are {', '.join(states) or 'none'}"
        elif night.course is Course.KILLED and RunState.LOST not in states:
            yield f"no run of night {night.number} was lost"
        elif night.course is Course.KILLED and not job.runs[-1].from_step:
            yield f"the last run of night {night.number} began again at the first step"


def an_overlap_waits(facts: Facts) -> Iterator[str]:
    """The night that came due too early waited, said for which job, and started when it ended."""
    first, second = (
        next((facts.fires(night)[0] for night in _with(facts, course)), None)
        for course in (Course.OVERLAPPED, Course.OVERLAPPING)
    )
    if first is None or second is None or first.job is None:
        yield "one of the two nights has no fire"
        return
    if first.job.id not in (facts.told.waited or ""):
        yield f"while it waited it said {facts.told.waited!r}, not {first.job.id}"
    if first.ended_at is None or second.submitted_at is None:
        yield "one of the two nights has not ended"
    elif not second.made_at < first.ended_at <= second.submitted_at:
        yield (
            f"it came due at {second.made_at}, was let go at {second.submitted_at}, and the one "
            f"before ended at {first.ended_at}"
        )


def labels_are_of_the_night(facts: Facts) -> Iterator[str]:
    """Each labelling job reads the rows since the one before, with the champion of its time."""
    begins: str | None = None
    for night in facts.nights:
        fire = facts.fires(night)[1]
        if fire is None or fire.job is None or fire.state != FireState.SUCCEEDED:
            continue
        for found in fire.job.took("rows").values():
            if begins is not None and found.since != begins:
                yield f"night {night.number} began at {found.since}, not at {begins}"
            begins = found.until
        if fire.job.rows != night.checked_rows:
            yield f"night {night.number} labelled {fire.job.rows} of {night.checked_rows} rows"
        champions = _champions(facts, fire)
        if fire.job.model not in champions:
            yield f"night {night.number} used {fire.job.model}, and the champion was {champions}"


def every_bulk_job_verifies(facts: Facts) -> Iterator[str]:
    """`jobs verify` finds one result for each row of every bulk job."""
    for fire in facts.labelling:
        if fire.job is not None and fire.job.state == JobState.SUCCEEDED and not fire.job.verified:
            yield f"{fire.job.id} is not verified"


def the_receiver_is_told(facts: Facts) -> Iterator[str]:
    """The receiver of webhooks got an event for every skipped fire and every decision."""
    happened = {
        (EventType.FIRE_SKIPPED.value, str(fire.id))
        for fire in itertools.chain(facts.training, facts.labelling)
        if fire.state == FireState.SKIPPED
    } | {
        (EventType.MODEL_PROMOTED if each.promoted else EventType.MODEL_REJECTED, each.job)
        for each in facts.decisions
    }
    told = set(facts.told.events)
    yield from (f"it got no {kind} ({about})" for kind, about in happened - told)
    yield from (f"it got {kind} ({about})" for kind, about in told - happened)


CHECKS: tuple[Check, ...] = (
    one_fire_a_night,
    nights_with_rows_succeed,
    an_empty_night_is_skipped,
    every_fine_tune_takes_what_is_new,
    rejected_rows_come_again,
    a_gate_compares_on_the_same_rows,
    the_flipped_night_is_refused,
    the_alias_follows_the_decisions,
    the_killed_night_goes_on,
    an_overlap_waits,
    labels_are_of_the_night,
    every_bulk_job_verifies,
    the_receiver_is_told,
)


def _with(facts: Facts, *courses: Course) -> list[Night]:
    return [night for night in facts.nights if night.course in courses]


def _trained(facts: Facts) -> Iterator[tuple[Night, Job]]:
    """Nights with a fine-tune that had rows."""
    for night in facts.nights:
        fire = facts.fires(night)[0]
        if fire is not None and fire.job is not None and night.course is not Course.EMPTY:
            yield night, fire.job


def _champions(facts: Facts, fire: Fire) -> set[str]:
    """What the alias pointed to when the fire was let go."""
    at = fire.submitted_at or fire.made_at
    return {
        f"{MODEL}@{move.version}"
        for move in facts.moves
        if move.since <= at and (move.until is None or at <= move.until)
    }


def _words(fire: Fire | None) -> str:
    if fire is None:
        return "there is no fire"
    return f"the fire is {fire.state}{f': {fire.reason}' if fire.reason else ''}"
