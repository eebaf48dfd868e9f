"""Steps, their time and the loss, as the agent of rank 0 counts them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from jobs.monitoring import meters
from jobs.monitoring.catalogue import Source
from workers.gang.step_meter import StepMeter


@pytest.fixture
def registry() -> Iterator[CollectorRegistry]:
    yield meters.begin(Source.HOST)
    meters.end()


def test_steps_between_messages_are_counted_with_their_time(registry: CollectorRegistry) -> None:
    moments = iter([0.0, 1.0, 3.0, 9.0])
    meter = StepMeter(clock=lambda: next(moments))
    loss = registry.get_sample_value("nightshift_training_loss")
    assert loss is not None
    assert math.isnan(loss)
    meter.take({"type": "phase", "phase": "training"})
    meter.take({"type": "progress", "step": 100, "steps_total": 200})  # where the run resumed
    meter.take({"type": "progress", "step": 101, "steps_total": 200})
    meter.take({"type": "points", "step": 105, "values": {"loss": 0.5, "learning_rate": 1e-4}})
    meter.take({"type": "progress", "step": 105, "steps_total": 200})
    assert registry.get_sample_value("nightshift_training_steps_total") == 5
    assert registry.get_sample_value("nightshift_training_step_seconds_sum") == 1.0 + 2.0 / 4
    assert registry.get_sample_value("nightshift_training_step_seconds_count") == 2
    assert registry.get_sample_value("nightshift_training_loss") == 0.5


def test_an_evaluation_has_no_steps(registry: CollectorRegistry) -> None:
    meter = StepMeter()
    meter.take({"type": "progress", "rows": 5, "rows_total": 10})
    assert registry.get_sample_value("nightshift_training_steps_total") == 0
