"""One installation for all kinds of bulk jobs but classify, and one finished job of each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.installation import Installation
from tests.support.installations import NewInstallation
from tests.workers.bulk.kinds import bulk_kind
from tests.workers.bulk.kinds.bulk_kind import BulkKind, Record


@pytest.fixture(scope="package")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BulkKind]:
    return bulk_kind.with_tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="package", params=bulk_kind.NAMES)
def kind(request: pytest.FixtureRequest, kinds: dict[str, BulkKind]) -> BulkKind:
    return kinds[request.param]


@pytest.fixture(scope="package")
def installation(
    new_installation: NewInstallation, kinds: dict[str, BulkKind]
) -> Iterator[Installation]:
    with new_installation(kinds["embed"].folder, worker_threads=1).running(
        "control", "planner", "pool"
    ) as installation:
        yield installation


@pytest.fixture(scope="package")
def job_id(installation: Installation, kind: BulkKind) -> str:
    """A job that has succeeded, with a Parquet file and with rows in Postgres."""
    return bulk_kind.succeeded(installation, kind, format="parquet", postgres=True)


@pytest.fixture(scope="package")
def results(installation: Installation, job_id: str) -> list[Record]:
    """The output rows of that job's parts."""
    return installation.results(job_id)
