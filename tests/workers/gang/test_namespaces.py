"""Three hosts, each in its own network, and real gloo between them."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from jobs.states import RunState
from jobs.tables import Host
from tests.support.installation import Installation
from tests.support.servers import Databases, Server
from tests.support.tiny_models import tiny_classifier
from tests.support.waiting import wait_until
from tests.workers.gang.namespaces import SERVERS, Namespace, are_possible, forwarded, network
from tests.workers.gang.trainer import Trainer

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not are_possible(), reason="network namespaces need root and iproute2"),
]

LONG = {"epochs": 20, "evaluate_steps": 200, "checkpoint_steps": 25}
NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def namespaces() -> Iterator[dict[str, Namespace]]:
    with network(len(NAMES)) as made:
        yield dict(zip(NAMES, made, strict=True))


@pytest.fixture(scope="module")
def trainer(
    tmp_path_factory: pytest.TempPathFactory,
    fresh_database: Databases,
    valkey: Server,
    namespaces: dict[str, Namespace],
) -> Iterator[Trainer]:
    valkey.start()
    home = tmp_path_factory.mktemp("namespaces")
    installation = Installation(
        database_url=fresh_database(),
        redis_url=valkey.url,
        home=home,
        model=tiny_classifier(home / "model"),
        lease_seconds=4,
        redispatch_seconds=3,
        train_grace_seconds=20,
    )
    ports = [_port(url) for url in (installation.settings.database_url, valkey.url)]
    with (
        forwarded(ports[0]),
        forwarded(ports[1]),
        installation.running("control", "planner"),
    ):
        trainer = Trainer(installation)
        for name in NAMES:
            start(trainer, name, namespaces[name])
        yield trainer


def start(trainer: Trainer, name: str, namespace: Namespace) -> None:
    settings = trainer.installation.settings
    trainer.start(
        name,
        before=namespace.command([]),
        NIGHTSHIFT_DATABASE_URL=settings.database_url.replace("127.0.0.1", SERVERS),
        NIGHTSHIFT_REDIS_URL=settings.redis_url.replace("127.0.0.1", SERVERS),
    )


def _port(url: str) -> int:
    port = sa.make_url(url).port
    assert port is not None
    return port


def test_three_hosts_train_one_model_across_their_networks(
    trainer: Trainer, namespaces: dict[str, Namespace]
) -> None:
    job_id = trainer.submit(machines=3)
    trainer.succeeded(job_id)
    (run,) = trainer.runs(job_id)
    assert run.machines == 3
    assert run.address in {namespace.address for namespace in namespaces.values()}
    with trainer.installation.sessions.begin() as session:
        addresses = set(session.scalars(sa.select(Host.address)))
    assert addresses == {namespace.address for namespace in namespaces.values()}


def test_two_jobs_of_two_machines_each_both_get_through_on_three_hosts(trainer: Trainer) -> None:
    first, second = trainer.submit(machines=2), trainer.submit(machines=2)
    trainer.succeeded(first)
    trainer.succeeded(second)
    for job_id in (first, second):
        assert [run.state for run in trainer.runs(job_id)] == [RunState.SUCCEEDED]


def test_a_host_that_is_cut_off_costs_the_run_and_not_the_job(
    trainer: Trainer, namespaces: dict[str, Namespace]
) -> None:
    job_id = trainer.submit(machines=2, train=LONG)
    trainer.wait_for_checkpoint(job_id)
    lost = trainer.live_ranks(job_id)[1].host
    namespaces[lost].cut_off()
    try:
        trainer.succeeded(job_id, seconds=240)
    finally:
        namespaces[lost].join()
    first, *_, last = trainer.runs(job_id)
    assert first.state is RunState.LOST
    assert first.failing_rank == 1
    assert lost in (first.reason or "")
    assert last.state is RunState.SUCCEEDED
    assert last.checkpoint_id is not None
    wait_until(lambda: trainer.hosts_idle() == set(NAMES), seconds=60)


def test_a_host_that_is_killed_costs_the_run_and_not_the_job(
    trainer: Trainer, namespaces: dict[str, Namespace]
) -> None:
    job_id = trainer.submit(machines=2, train=LONG)
    trainer.wait_for_checkpoint(job_id)
    lost = trainer.live_ranks(job_id)[0].host
    trainer.hosts[lost].send(signal.SIGKILL)
    trainer.succeeded(job_id, seconds=240)
    first, *_, last = trainer.runs(job_id)
    assert first.state is RunState.LOST
    assert lost in (first.reason or "")
    assert last.state is RunState.SUCCEEDED
    start(trainer, lost, namespaces[lost])
