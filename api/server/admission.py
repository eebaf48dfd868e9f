"""Specs that are refused at submission, before a planner or a host would find the mistake.

Fields alone are checked in ``jobs.kinds``; here stands what needs the project's files and the
installation's settings.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.orm import Session

from api.server import accelerate_entries
from jobs.corpora import sources
from jobs.errors import BadSpec, CorpusRefused, ModelFailure, NotFound
from jobs.kinds import AnySpec, Corpus, FinetuneSpec
from jobs.models import references
from jobs.queries import files
from jobs.settings import Settings


def check(session: Session, spec: AnySpec, *, project_id: str, settings: Settings) -> None:
    """Raise ``BadSpec`` or another error for a spec that cannot succeed."""
    for param, corpus in corpora(spec):
        _check_corpus(session, corpus, param=param, project_id=project_id, settings=settings)
    if isinstance(spec, FinetuneSpec):
        accelerate_entries.check(spec.train.accelerate or {})
    _check_model(spec, settings=settings)


def corpora(spec: AnySpec) -> Iterator[tuple[str, Corpus]]:
    """Every corpus that a spec names, with its path in the spec."""
    yield "corpus", spec.corpus
    if isinstance(spec, FinetuneSpec):
        for name, corpus in (("validation", spec.validation), ("test", spec.test)):
            if corpus is not None:
                yield name, corpus
        if spec.promote is not None and spec.promote.corpus is not None:
            yield "promote.corpus", spec.promote.corpus


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
    named = references.of_spec(spec)
    if named is None:
        return
    param, reference = named
    try:
        references.check_allowed(reference, settings.allowed_models)
    except ModelFailure as failure:
        raise BadSpec(failure.message, code=failure.code, param=param) from failure
