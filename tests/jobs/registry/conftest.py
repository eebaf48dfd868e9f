"""A registry on a real Postgres, with objects in a folder."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest

from jobs import objects
from jobs.ledger import registry
from jobs.lookups import registry as lookups
from jobs.models import bundles, references
from jobs.models.references import Registered
from jobs.tables import ModelVersion
from tests.jobs.ledger.building import PROJECT, Ledger


class Registry:
    """A ledger and a store, and short calls to register and look up models in them."""

    def __init__(self, ledger: Ledger, store_path: Path) -> None:
        self.ledger = ledger
        self.store_path = store_path
        self.store = objects.connect(store_path.as_uri())

    def register(
        self,
        name: str,
        *,
        project: str = PROJECT,
        folder: Path | None = None,
        job_id: str | None = None,
        **fields: Any,
    ) -> int:
        """A new version with the folder's files, or without files."""
        prefix = f"models/{project}/{name}/{secrets.token_hex(4)}"
        files = bundles.upload(self.store, folder, prefix=prefix) if folder else []
        values: dict[str, Any] = {
            "task": "classify",
            "kind": "full",
            "base": None,
            "metrics": {},
            "lineage": {},
            **fields,
        }
        with self.ledger.sessions.begin() as session:
            return registry.register(
                session, project_id=project, name=name, files=files, job_id=job_id, **values
            )

    def lookup(self, reference: str, *, project: str = PROJECT) -> ModelVersion:
        name = references.parse(reference)
        assert isinstance(name, Registered)
        with self.ledger.sessions.begin() as session:
            return lookups.version(session, name, project_id=project)

    def point(self, name: str, alias: str, version: int, *, project: str = PROJECT) -> None:
        with self.ledger.sessions.begin() as session:
            registry.set_alias(session, project_id=project, name=name, alias=alias, version=version)

    def delete(
        self, name: str, version: int, *, project: str = PROJECT
    ) -> list[bundles.BundleFile]:
        with self.ledger.sessions.begin() as session:
            return registry.delete_version(session, project_id=project, name=name, version=version)


@pytest.fixture(scope="module")
def made(ledger: Ledger, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(ledger, tmp_path_factory.mktemp("objects"))
