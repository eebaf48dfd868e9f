"""Parts of a turn are counted: their time, what they did, and those that fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from jobs.database import Sessions
from jobs.monitoring import meters
from jobs.monitoring.catalogue import Source
from tests.workers.control.plane import ControlPlane
from workers.control import reconciler


@pytest.fixture
def registry() -> Iterator[CollectorRegistry]:
    yield meters.begin(Source.CONTROL)
    meters.end()


def figure(registry: CollectorRegistry, name: str, part: str) -> float | None:
    return registry.get_sample_value(f"nightshift_control_{name}", {"part": part})


def test_what_a_turn_sends_is_counted_by_its_part(
    plane: ControlPlane, registry: CollectorRegistry
) -> None:
    plane.ledger.running(1, 1, 1)
    assert plane.turn() == 3
    assert figure(registry, "moves_total", "dispatch_chunks") == 3
    assert figure(registry, "part_seconds_count", "dispatch_chunks") == 1
    queue = {"queue": "pool.cpu"}
    assert registry.get_sample_value("nightshift_queue_messages", queue) == 0  # before it sent
    plane.turn()
    assert registry.get_sample_value("nightshift_queue_messages", queue) == 3


def test_a_part_that_fails_is_counted_and_the_others_go_on(
    plane: ControlPlane, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rescue(_sessions: Sessions) -> int:
        raise ValueError("a fault of ours")

    monkeypatch.setattr(reconciler, "rescue", rescue)
    chunk_id = plane.ledger.only_chunk(plane.ledger.running(1))
    plane.ledger.claimed(chunk_id)
    plane.ledger.run_out(chunk_id)
    plane.ledger.running(1)
    plane.turn()
    assert figure(registry, "part_failures_total", "rescue") == 1
    assert figure(registry, "moves_total", "rescue") == 0
    assert figure(registry, "moves_total", "dispatch_chunks") == 1
