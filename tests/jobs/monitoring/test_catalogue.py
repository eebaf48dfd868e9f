"""Metrics follow the conventions of Prometheus, and their labels are bounded."""

from __future__ import annotations

import re

import pytest

from jobs.monitoring import catalogue
from jobs.monitoring.catalogue import ALL, CONTROL_PARTS, Metric, MetricType, Source
from workers.control import gangs, reconciler, retention, schedules
from workers.outcomes import TaskState

UNITS = ("_seconds", "_bytes")
FORBIDDEN = {"job", "job_id", "chunk", "run", "run_id", "path", "text", "row", "id", "model"}


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_a_metric_has_a_conventional_name_and_labels(metric: Metric) -> None:
    assert re.fullmatch(r"nightshift_[a-z][a-z_]*", metric.name)
    assert metric.name.endswith("_total") == (metric.type is MetricType.COUNTER)
    assert metric.name.endswith(UNITS) or metric.type is not MetricType.HISTOGRAM
    assert bool(metric.buckets) == (metric.type is MetricType.HISTOGRAM)
    assert list(metric.buckets) == sorted(metric.buckets)
    assert metric.help.endswith(".")
    assert metric.sources
    names = [label.name for label in metric.labels]
    assert len(set(names)) == len(names)
    assert not FORBIDDEN & set(names)


def test_facts_of_the_ledger_are_gauges() -> None:
    facts = [each for each in ALL if Source.LEDGER in each.sources]
    assert facts
    assert {each.type for each in facts} == {MetricType.GAUGE}
    assert {each.sources for each in facts} == {(Source.LEDGER,)}


def test_the_parts_of_control_are_functions_that_exist() -> None:
    rooms = (gangs, reconciler, retention, schedules)
    assert all(any(hasattr(room, part) for room in rooms) for part in CONTROL_PARTS)


def test_tasks_end_in_the_states_that_are_counted() -> None:
    (_, state) = catalogue.TASK_SECONDS.labels
    assert set(state.values) == {*TaskState, "raised"}


def test_no_two_metrics_have_the_same_name() -> None:
    assert len({each.name for each in ALL}) == len(ALL)
    assert catalogue.ROWS in ALL
