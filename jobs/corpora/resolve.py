"""From a job's spec to the bytes of its corpus."""

from __future__ import annotations

from sqlalchemy.orm import Session

from jobs import private_places
from jobs.corpora import sources
from jobs.corpora.sources import Source
from jobs.kinds import Corpus
from jobs.objects import ObjectStore
from jobs.queries import files
from jobs.settings import Settings


def source(
    session: Session,
    store: ObjectStore,
    corpus: Corpus,
    *,
    project_id: str,
    settings: Settings,
) -> Source:
    """The corpus's bytes. Raises ``NotFound`` or ``CorpusRefused``."""
    if corpus.uri is not None:
        return sources.from_uri(
            corpus.uri, allowed=settings.allowed_inputs, private=private_places.of(settings)
        )
    assert corpus.file is not None
    file = files.get(session, corpus.file, project_id=project_id)
    return sources.from_object(store, file.object_key, name=file.filename)
