"""From a job's spec to the bytes of its corpus."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from jobs.corpora import sources
from jobs.corpora.sources import Source
from jobs.kinds import Corpus
from jobs.objects import ObjectStore
from jobs.queries import files


def source(
    session: Session,
    store: ObjectStore,
    corpus: Corpus,
    *,
    project_id: str,
    allowed: Sequence[str],
) -> Source:
    """The corpus's bytes. Raises ``NotFound`` or ``CorpusRefused``."""
    if corpus.uri is not None:
        return sources.from_uri(corpus.uri, allowed=allowed)
    assert corpus.file is not None
    file = files.get(session, corpus.file, project_id=project_id)
    return sources.from_object(store, file.object_key, name=file.filename)
