"""A bulk job that names a model of the registry, with real processes and a real store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.ledger import registry
from jobs.models import bundles
from jobs.states import JobState
from tests.support.installation import PROJECT, Installation, jsonl, sentences
from tests.support.servers import Databases, Server
from tests.support.tiny_models import tiny_classifier

CORPUS = jsonl(sentences(300))


@pytest.fixture
def installation(
    tmp_path: Path, fresh_database: Databases, valkey: Server
) -> Iterator[Installation]:
    installation = Installation(
        database_url=fresh_database(),
        redis_url=valkey.url,
        home=tmp_path / "installation",
        model=tiny_classifier(tmp_path / "model"),
        artefact_cache=str(tmp_path / "artefacts"),
        worker_threads=1,
        allowed_models=[str(tmp_path)],
    )
    with installation.running("control", "planner", "pool"):
        yield installation


def register(installation: Installation, folder: Path, *, champion: bool) -> str:
    with installation.sessions.begin() as session:
        version = registry.register(
            session,
            project_id=PROJECT,
            name="news",
            task="classify",
            kind="full",
            base=None,
            files=bundles.upload(installation.store, folder, prefix=f"models/{folder.name}"),
            metrics={},
            lineage={},
            job_id=None,
        )
        if champion:
            registry.set_alias(
                session, project_id=PROJECT, name="news", alias="champion", version=version
            )
    return f"news@{version}"


def labels(installation: Installation, job_id: str) -> list[str | None]:
    view = installation.wait(job_id)
    assert view.job.state is JobState.SUCCEEDED, f"{view.job.error_message} {installation.logs()}"
    return [row["label"] for row in installation.results(job_id)]


def test_a_bulk_job_uses_the_version_that_its_alias_pointed_to_when_it_was_accepted(
    installation: Installation, tmp_path: Path
) -> None:
    register(installation, installation.model, champion=True)
    job_id = installation.submit(CORPUS, model="news@champion", chunk_rows=150)
    register(installation, tiny_classifier(tmp_path / "other", seed=1), champion=True)
    later = installation.submit(CORPUS, model="news@champion", chunk_rows=150)
    by_folder = installation.submit(CORPUS, chunk_rows=150)
    assert labels(installation, job_id) == labels(installation, by_folder)
    assert labels(installation, later) != labels(installation, job_id)
    pinned = [installation.job(each).job.model_pinned for each in (job_id, later, by_folder)]
    assert pinned == ["news@1", "news@2", None]
    cached = [path for path in (tmp_path / "artefacts").iterdir() if path.is_dir()]
    assert len(cached) == 2
