"""Which objects a job reads: as they are written down with it, or else as they are listed now.

A planner lists them and writes them down before it reads the first row. The next
planner of the job, after a crash or for a retry, finds them written down.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from jobs import database, globs, private_places
from jobs.corpora import listing, resolve
from jobs.corpora.corpus_reader import EMPTY, CorpusReader
from jobs.corpora.decoder import Limits
from jobs.corpora.targets import TargetKind
from jobs.errors import CorpusFailure
from jobs.inputs import MOST_OBJECTS, SQL, Input, in_batches
from jobs.kinds import Corpus, IfEmpty
from jobs.ledger import inputs as ledger
from jobs.ledger import plans
from jobs.ledger.step_leases import StepLease
from jobs.progress import Beat
from jobs.queries import files
from jobs.queries import inputs as queries
from workers.bulk import sql_extract
from workers.context import Context
from workers.step_lease import PATIENCE

SHOWN = 200
"""Characters of a list of names in a message."""

AT_ONCE = 1_000
"""Objects that are compared at a time with those that were taken before."""


def settle(
    lease: StepLease, corpora: Mapping[str, Corpus], *, beat: Beat, context: Context
) -> dict[str, tuple[Input, ...]]:
    """The objects of each corpus, by its split. Raises ``CorpusFailure``, ``CorpusRefused``."""
    with context.sessions.begin() as session:
        written_down = queries.of_job(session, lease.job_id)
    if written_down is not None:
        return {split: written_down.get(split, ()) for split in corpora}
    listed = {
        split: list(_listed(lease, split, corpus, beat=beat, context=context))
        for split, corpus in corpora.items()
    }
    return database.patiently(
        context.sessions,
        lambda session: ledger.pin(session, lease, corpora, listed),
        seconds=PATIENCE,
    )


def reader(
    corpus: Corpus,
    inputs: tuple[Input, ...],
    *,
    beat: Beat,
    context: Context,
    targets: TargetKind | None = None,
) -> CorpusReader:
    """A reader of these objects."""
    return CorpusReader(
        corpus,
        inputs,
        opened=lambda each: resolve.opened(each, context.store, settings=context.settings),
        limits=Limits.of(context.settings),
        beat=beat,
        targets=targets,
    )


def end_if_empty(
    lease: StepLease,
    readers: Mapping[str, CorpusReader],
    *,
    rows: int,
    context: Context,
) -> bool:
    """Whether the job ends because the last corpus that was read has too few rows.

    Raises ``CorpusFailure`` where the job fails for it.
    """
    reader = list(readers.values())[-1]
    corpus = reader.corpus
    if rows >= corpus.least_rows:
        return False
    if corpus.if_empty is IfEmpty.FAIL:
        raise reader.failure or CorpusFailure(_why_empty(reader, rows=rows), code=EMPTY)
    read = {split: each.read for split, each in readers.items()}
    database.patiently(
        context.sessions,
        lambda session: plans.end_empty(
            session, lease, reason=_why_empty(reader, rows=rows), read=read
        ),
        seconds=PATIENCE,
    )
    return True


def _why_empty(reader: CorpusReader, *, rows: int) -> str:
    corpus = reader.corpus
    where = ", ".join(corpus.named) or f"the files with the tag {corpus.tag}"
    if corpus.sql is not None:
        where = f"{SQL}{corpus.sql.source}"
    where = where if len(where) <= SHOWN else f"{where[:SHOWN]}…"
    new = "new " if corpus.since is not None else ""
    if rows:
        return f"{where}: {rows:,} {new}rows, and min_rows is {corpus.min_rows:,}"
    return f"{where} holds no rows" if reader.read else f"{where}: there are no {new}objects"


def _listed(
    lease: StepLease, split: str, corpus: Corpus, *, beat: Beat, context: Context
) -> Iterator[Input]:
    """The objects of a corpus in the order of reading, each once."""
    seen: set[str] = set()
    found = _found(lease, split, corpus, beat=beat, context=context)
    for each in _few(found, corpus):
        if each.name not in seen:
            seen.add(each.name)
            yield each


def _found(
    lease: StepLease, split: str, corpus: Corpus, *, beat: Beat, context: Context
) -> Iterator[Input]:
    if corpus.sql is not None:
        yield sql_extract.extract(lease, split, corpus, corpus.sql, beat=beat, context=context)
    if corpus.tag is not None:
        tagged = _tagged(lease, corpus.tag, context=context)
        yield from _new(lease, split, corpus, tagged, context=context)
    for name in corpus.named:
        beat()
        if globs.is_pattern(name):
            matching = listing.matching(
                name,
                allowed=context.settings.allowed_inputs,
                private=private_places.of(context.settings),
                beat=beat,
            )
            new = _new(lease, split, corpus, matching, context=context)
            yield from sorted(_few(new, corpus), key=lambda each: each.name)
        else:
            one = _one(lease, name, corpus, context=context)
            yield from _new(lease, split, corpus, [one], context=context)


def _tagged(lease: StepLease, tag: str, *, context: Context) -> Iterator[Input]:
    place: queries.Place | None = None
    while True:
        with context.sessions.begin() as session:
            found, place = queries.tagged(
                session, tag, project_id=lease.project_id, limit=AT_ONCE, after=place
            )
        yield from found
        if place is None:
            return


def _one(lease: StepLease, name: str, corpus: Corpus, *, context: Context) -> Input:
    if name not in corpus.files:
        return resolve.at_uri(name, settings=context.settings)
    with context.sessions.begin() as session:
        return queries.of_file(files.get(session, name, project_id=lease.project_id))


def _new(
    lease: StepLease, split: str, corpus: Corpus, listed: Iterable[Input], *, context: Context
) -> Iterator[Input]:
    """Those that are new to the job, where that is asked; memory is bounded by what is new."""
    for batch in in_batches(listed, AT_ONCE):
        with context.sessions.begin() as session:
            new = queries.new(session, lease.job_id, batch, split=split, since=corpus.since)
        yield from new


def _few(inputs: Iterable[Input], corpus: Corpus) -> Iterator[Input]:
    """The same, as long as they are not too many."""
    for count, each in enumerate(inputs, 1):
        if count > MOST_OBJECTS:
            where = corpus.tag or ", ".join(corpus.named)
            raise CorpusFailure(
                f"a corpus has at most {MOST_OBJECTS:,} objects, and {where[:200]} has more: take "
                "a narrower pattern, or join them to larger objects",
                code="too_many_objects",
            )
        yield each
