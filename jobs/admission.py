"""Specs that are refused at submission, before a planner or a host would find the mistake.

Fields alone are checked in ``jobs.kinds``; here stands what needs the installation's settings.
``jobs.ledger.submission`` looks for the project's files and models.
"""

from __future__ import annotations

from jobs import sql_sources
from jobs.corpora import sources
from jobs.decisions import accelerate_entries
from jobs.errors import BadSpec, CorpusRefused, ModelFailure, NightshiftError
from jobs.kinds import AnySpec
from jobs.kinds.groups import GroupSpec
from jobs.models import references
from jobs.settings import Settings


def check(spec: AnySpec, *, project_id: str, settings: Settings) -> None:
    """Raise ``BadSpec`` or another error for a spec that cannot succeed."""
    for param, corpus in spec.corpora():
        for uri in corpus.uris:
            field = "uri" if corpus.sources is None else "sources"
            _check_uri(uri, param=f"{param}.{field}", settings=settings)
        if corpus.sql is not None:
            _check_source(corpus.sql.source, f"{param}.sql.source", project_id, settings)
    accelerate_entries.check(spec.accelerate)
    _check_model(spec, settings=settings)


def check_group(spec: GroupSpec, *, project_id: str, settings: Settings) -> None:
    """The same for every member; the field that cannot be right is named with its member."""
    for name, each in spec.members().items():
        try:
            check(each, project_id=project_id, settings=settings)
        except NightshiftError as error:
            error.param = ".".join(filter(None, (spec.place(name), error.param)))
            raise


def _check_uri(uri: str, *, param: str, settings: Settings) -> None:
    try:
        sources.check_allowed(uri, settings.allowed_inputs)
    except CorpusRefused as error:
        raise CorpusRefused(error.message, param=param) from error


def _check_source(name: str, param: str, project_id: str, settings: Settings) -> None:
    try:
        sql_sources.find(name, project_id=project_id, settings=settings)
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
