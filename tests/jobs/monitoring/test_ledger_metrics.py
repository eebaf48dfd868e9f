"""Facts of the ledger as Prometheus reads them."""

from __future__ import annotations

import socket

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from jobs import database
from jobs.monitoring import catalogue, ledger_metrics
from jobs.monitoring.catalogue import ALL, MOST_VALUES, OTHER, Source
from jobs.monitoring.ledger_metrics import LedgerCollector
from tests.jobs.ledger.building import Ledger


def registry(ledger: Ledger, *, kept_seconds: float = 0.0) -> CollectorRegistry:
    made = CollectorRegistry(auto_describe=False)
    made.register(LedgerCollector(ledger.sessions, kept_seconds=kept_seconds))
    return made


def test_every_fact_of_the_catalogue_is_read(ledger: Ledger) -> None:
    ledger.running(1)
    names = {family.name for family in registry(ledger).collect()}
    assert names == {each.name for each in ALL if Source.LEDGER in each.sources}


def test_the_ledger_is_read_once_for_scrapes_that_come_together(ledger: Ledger) -> None:
    kept = registry(ledger, kept_seconds=60.0)
    labels = {"pool": "fresh", "reason": "planner"}
    assert kept.get_sample_value("nightshift_ledger_up") == 1
    ledger.accept(pool="fresh")
    assert kept.get_sample_value("nightshift_waiting_jobs", labels) is None
    no_planner = {**labels, "reason": "no_planner"}
    assert registry(ledger).get_sample_value("nightshift_waiting_jobs", no_planner) == 1


def test_a_ledger_that_cannot_be_read_is_all_there_is_to_tell() -> None:
    engine = sa.create_engine("postgresql+psycopg://127.0.0.1:1/none")
    families = list(LedgerCollector(database.sessions(engine)).collect())
    assert [(each.name, each.samples[0].value) for each in families] == [
        ("nightshift_ledger_up", 0.0)
    ]


def test_a_scrape_does_not_wait_for_a_postgres_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        engine = sa.create_engine(
            f"postgresql+psycopg://127.0.0.1:{port}/none", connect_args={"connect_timeout": 60}
        )
        collector = LedgerCollector(database.sessions(engine), patience=0.2)
        for _ in range(3):
            (family,) = collector.collect()
            assert (family.name, family.samples[0].value) == ("nightshift_ledger_up", 0.0)
        silent.settimeout(10)
        first, _ = silent.accept()
        silent.settimeout(0.0)
        with first, pytest.raises(BlockingIOError):  # one reading at a time, however many ask
            silent.accept()


def test_figures_are_back_when_the_ledger_is(ledger: Ledger) -> None:
    with ledger.sessions.begin() as session:
        session.execute(sa.text("ALTER TABLE schedules RENAME TO gone"))
    found = registry(ledger)
    assert [each.name for each in found.collect()] == ["nightshift_ledger_up"]
    with ledger.sessions.begin() as session:
        session.execute(sa.text("ALTER TABLE gone RENAME TO schedules"))
    assert found.get_sample_value("nightshift_ledger_up") == 1


def test_values_beyond_the_limit_are_added_up_and_of_times_the_longest_counts() -> None:
    counts = [((f"{number:03}", "turn"), 1.0) for number in range(MOST_VALUES + 5)]
    sums = dict(ledger_metrics.bounded(catalogue.WAITING_JOBS, counts))
    assert len(sums) == MOST_VALUES + 1
    assert sums[OTHER, "turn"] == 5
    ages = dict(ledger_metrics.bounded(catalogue.OLDEST_WAITING, counts))
    assert ages[OTHER, "turn"] == 1
