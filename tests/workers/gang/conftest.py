"""An installation with two training hosts.

A test that ends a process starts it again, and ends its jobs. Where one fails before it does, the
next one finds every process started and the hosts free: one failure is told as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.ledger.building import Ledger
from tests.support.installation import Installation
from tests.support.installations import NewInstallation
from tests.support.tiny_models import tiny_classifier
from tests.workers.gang.gang_setup import GangSetup
from tests.workers.gang.trainer import Trainer

ROLES = ("control", "planner")
HOSTS = ("alpha", "beta")


@pytest.fixture(scope="package")
def installation(
    new_installation: NewInstallation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    made = new_installation(
        tiny_classifier,
        lease_seconds=3,
        redispatch_seconds=3,
        train_grace_seconds=20,
        train_stall_seconds=60,
        artefact_cache=str(tmp_path_factory.mktemp("artefacts")),
        allowed_inputs=[f"{tmp_path_factory.mktemp('inputs').as_uri()}/"],
    )
    with made.running(*ROLES) as installation:
        yield installation


@pytest.fixture(scope="package")
def hosts(installation: Installation) -> Trainer:
    """The installation with two hosts, ``alpha`` and ``beta``."""
    trainer = Trainer(installation)
    for name in HOSTS:
        trainer.start(name)
    return trainer


@pytest.fixture
def trainer(hosts: Trainer) -> Iterator[Trainer]:
    """The installation, of which every process is alive; its jobs end with the test."""
    for role in ROLES:
        if not hosts.installation.has_role(role):
            hosts.installation.start_role(role)
    for name in HOSTS:
        if not hosts.hosts[name].alive:
            hosts.start(name)
    yield hosts
    hosts.cancel_all()


@pytest.fixture
def setup(ledger: Ledger, tmp_path: Path) -> GangSetup:
    """A gang on a ledger alone: no installation, no program."""
    return GangSetup(ledger, tmp_path)
