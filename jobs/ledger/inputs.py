"""What a job reads is written down once, before its first row is read."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.errors import CorpusFailure
from jobs.inputs import Input, ReadInput, in_batches
from jobs.kinds import Corpus, Since
from jobs.ledger import events, files, step_leases
from jobs.ledger.step_leases import StepLease
from jobs.lookups import inputs as lookups
from jobs.tables import Job, JobInput

AT_ONCE = 1_000
"""Objects of one statement."""

_LOCKS = 7_305_881
"""Of the advisory locks on what a schedule takes; the other half of the key is the schedule."""


def pin(
    session: Session,
    lease: StepLease,
    corpora: Mapping[str, Corpus],
    listed: Mapping[str, Sequence[Input]],
) -> dict[str, tuple[Input, ...]]:
    """Write down the objects of each corpus, by its split; those that are new, where that is asked.

    Of the jobs of one schedule one does so at a time: no object becomes that of two. Raises
    ``LeaseLost``, and ``CorpusFailure`` for an uploaded file that was deleted meanwhile.
    """
    if any(corpus.since is not None for corpus in corpora.values()):
        _wait_for_turn(session, lease.job_id)
    step_leases.confirm(session, lease)
    kept = {
        split: tuple(_new(session, lease, listed[split], split=split, since=corpus.since))
        for split, corpus in corpora.items()
    }
    _hold_files(session, lease, itertools.chain.from_iterable(kept.values()))
    for split, inputs in kept.items():
        place = {"job_id": lease.job_id, "split": split}
        for batch in in_batches(enumerate(inputs), AT_ONCE):
            rows = [place | {"index": index} | asdict(each) for index, each in batch]
            session.execute(insert(JobInput), rows)
    session.execute(sa.update(Job).where(Job.id == lease.job_id).values(inputs_at=sa.func.now()))
    if not all(corpus.is_single and corpus.sql is None for corpus in corpora.values()):
        counts = {split: _in_words(inputs) for split, inputs in kept.items()}
        events.record(session, job_id=lease.job_id, type="inputs", corpora=counts)
    return kept


def _in_words(inputs: Sequence[Input]) -> dict[str, Any]:
    """What an event says of a corpus."""
    found: dict[str, Any] = {"objects": len(inputs), "bytes": sum(each.bytes for each in inputs)}
    if inputs and inputs[0].query is not None:
        bounds = {name: inputs[0].query[name] for name in ("since", "until")}
        found |= {"name": inputs[0].name, "rows": inputs[0].rows, **bounds}
    return found


def record_read(session: Session, job_id: str, *, split: str, read: Iterable[ReadInput]) -> None:
    """Write down what became known of objects by reading them."""
    for batch in in_batches(read, AT_ONCE):
        session.execute(
            sa.update(JobInput),
            [{"job_id": job_id, "split": split} | asdict(each) for each in batch],
        )


def _wait_for_turn(session: Session, job_id: str) -> None:
    """Until this transaction ends, no other job of the schedule writes down what it takes."""
    schedule_id = lookups.schedule(session, job_id)
    session.execute(
        sa.select(sa.func.pg_advisory_xact_lock(_LOCKS, sa.func.hashtext(schedule_id or job_id)))
    )


def _new(
    session: Session,
    lease: StepLease,
    listed: Sequence[Input],
    *,
    split: str,
    since: Since | None,
) -> Iterator[Input]:
    if since is None:
        yield from listed
        return
    for batch in in_batches(listed, AT_ONCE):
        names = [each.name for each in batch]
        taken = lookups.taken(session, lease.job_id, split=split, since=since, names=names)
        yield from (each for each in batch if (each.name, each.version) not in taken)


def _hold_files(session: Session, lease: StepLease, inputs: Iterable[Input]) -> None:
    """Keep uploaded files from being deleted from now on."""
    uploaded = {each.name for each in inputs if each.filename is not None}
    for batch in in_batches(sorted(uploaded), AT_ONCE):
        there = files.hold_all(session, batch, project_id=lease.project_id)
        for file_id in sorted(set(batch) - there):
            raise CorpusFailure(f"the uploaded file {file_id} was deleted", code="file_not_found")
