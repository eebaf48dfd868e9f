"""Specs that are refused at submission, before a planner or a host would find the mistake.

Fields alone are checked in ``jobs.kinds``; here stands what needs the project's files and the
installation's settings.
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from api.server import accelerate_entries
from jobs.corpora import sources
from jobs.errors import BadSpec, CorpusRefused, ModelFailure, NotFound
from jobs.kinds import AnySpec, Corpus
from jobs.models import references
from jobs.queries import files
from jobs.settings import Settings


def check(session: Session, spec: AnySpec, *, project_id: str, settings: Settings) -> None:
    """Raise ``BadSpec`` or another error for a spec that cannot succeed."""
    for param, corpus in spec.corpora():
        _check_corpus(session, corpus, param=param, project_id=project_id, settings=settings)
    accelerate_entries.check(spec.accelerate)
    _check_model(spec, settings=settings)


def _check_corpus(
    session: Session, corpus: Corpus, *, param: str, project_id: str, settings: Settings
) -> None:
    """Refuse at once what the planner would refuse later."""
    if corpus.uri is not None:
        _check_uri(corpus.uri, param=f"{param}.uri", settings=settings)
        return
    assert corpus.file is not None
    try:
        files.get(session, corpus.file, project_id=project_id)
    except NotFound as error:
        raise NotFound(error.message, code="file_not_found", param=f"{param}.file") from error


def _check_uri(uri: str, *, param: str, settings: Settings) -> None:
    try:
        sources.check_allowed(uri, settings.allowed_inputs)
    except CorpusRefused as error:
        raise CorpusRefused(error.message, param=param) from error


def _check_model(spec: AnySpec, *, settings: Settings) -> None:
    if spec.starts_from is None:
        return
    param, reference = spec.starts_from
    try:
        references.check_allowed(reference, settings.allowed_models)
    except ModelFailure as failure:
        raise BadSpec(failure.message, code=failure.code, param=param) from failure
