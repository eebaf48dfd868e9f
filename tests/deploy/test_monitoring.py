"""Alerts, dashboards and runbooks name what the code exports; promtool checks and tests the rules.

``promtool`` is in Debian's package ``prometheus``; only where it is missing its tests are skipped.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from api.stack.up import METRICS_PORT
from jobs.monitoring.catalogue import ALL, MetricType

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARDS = sorted((ROOT / "deploy" / "grafana").glob("*.json"))
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
CONFIGS = ("prometheus.yml", "embedded.yml")

RULES: list[dict[str, Any]] = [
    rule
    for group in YAML(typ="safe").load(PROMETHEUS / "rules.yml")["groups"]
    for rule in group["rules"]
]
TESTS: list[dict[str, Any]] = YAML(typ="safe").load(PROMETHEUS / "rules_test.yml")["tests"]
SERIES = {name: metric for metric in ALL for name in metric.series}
OF_EVERY_SERIES = {"job", "instance", "service"}

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is missing: install Debian's package `prometheus`, its service need not run",
)


def promtool(*arguments: str) -> None:
    done = subprocess.run(
        ["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def expressions() -> Iterator[tuple[str, str]]:
    """Each expression with where it stands."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{path.stem}: {panel['title']}", target["expr"]


EXPRESSIONS = list(expressions())


@needs_promtool
def test_the_rules_are_valid() -> None:
    promtool("check", "rules", "rules.yml")


@needs_promtool
def test_each_alert_fires_when_it_should_and_not_before() -> None:
    promtool("test", "rules", "rules_test.yml")


@needs_promtool
@pytest.mark.parametrize("config", CONFIGS)
def test_what_is_scraped_is_valid(config: str) -> None:
    promtool("check", "config", "--syntax-only", config)


@needs_promtool
def test_every_expression_of_a_dashboard_is_valid(tmp_path: Path) -> None:
    rules = [
        {"record": f"expression_{number}", "expr": expr}
        for number, (_, expr) in enumerate(EXPRESSIONS)
    ]
    path = tmp_path / "rules.json"  # YAML as well
    path.write_text(json.dumps({"groups": [{"name": "expressions", "rules": rules}]}))
    promtool("check", "rules", str(path))


@pytest.mark.parametrize(("place", "expr"), EXPRESSIONS, ids=[each for each, _ in EXPRESSIONS])
def test_every_metric_that_is_named_is_exported_with_these_labels(place: str, expr: str) -> None:
    named = re.findall(r"\b(nightshift_[a-z0-9_]+)(?:\{([^}]*)\})?", expr)
    others = set(re.findall(r"\b(?:up|ALERTS|process_\w+)\b", expr))
    assert named or others, place
    for name, matchers in named:
        assert name in SERIES, f"{place} names {name}, which no process exports"
        metric = SERIES[name]
        histogram = {"le"} if metric.type is MetricType.HISTOGRAM else set()
        known = {label.name for label in metric.labels} | histogram | OF_EVERY_SERIES
        asked = set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', matchers))
        assert asked <= known, f"{place}: {name} has no label {asked - known}"


@pytest.mark.parametrize(("place", "expr"), EXPRESSIONS, ids=[each for each, _ in EXPRESSIONS])
def test_a_value_that_is_asked_for_can_occur(place: str, expr: str) -> None:
    for name, matchers in re.findall(r"\b(nightshift_[a-z0-9_]+)\{([^}]*)\}", expr):
        closed = {label.name: label.values for label in SERIES[name].labels if label.values}
        for label, value in re.findall(r'(\w+)="([^"]*)"', matchers):
            assert value in closed.get(label, (value,)), f"{place}: {label} is never {value}"


def test_there_is_an_alert_for_each_incident() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names)) >= 15


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_has_a_severity_words_a_test_and_a_runbook(rule: dict[str, Any]) -> None:
    name = rule["alert"]
    assert rule["labels"]["severity"] in {"warning", "critical"}
    notes = rule["annotations"]
    assert notes["summary"]
    assert notes["description"]
    assert notes["runbook"] == f"docs/runbooks.md#{name.lower()}"
    section = RUNBOOKS.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    assert "**Cause.**" in section
    assert "```console\n$ " in section
    assert "**Do.**" in section
    tested = [
        test
        for test in TESTS
        for each in test["promql_expr_test"]
        if f'alertname="{name}"' in each["expr"] and each["exp_samples"]
    ]
    assert tested


def test_no_runbook_is_left_of_an_alert_that_is_gone() -> None:
    sections = set(re.findall(r"^## (\w+)$", RUNBOOKS, flags=re.MULTILINE))
    assert sections == {rule["alert"] for rule in RULES}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_can_be_imported(path: Path) -> None:
    board = json.loads(path.read_text())
    assert board["uid"] == f"nightshift-{path.stem}"
    assert [each["type"] for each in board["templating"]["list"]] == ["datasource"]
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


def test_the_dashboards_are_those_that_the_page_names() -> None:
    assert [path.stem for path in DASHBOARDS] == [
        *("nightly", "overview", "throughput", "training", "workers")
    ]


def test_grafana_finds_prometheus_and_the_dashboards_in_the_compose_file() -> None:
    services = YAML(typ="safe").load(ROOT / "docker-compose.yml")["services"]
    provisioning = ROOT / "deploy" / "grafana" / "provisioning"
    (source,) = YAML(typ="safe").load(provisioning / "datasources" / "nightshift.yml")[
        "datasources"
    ]
    assert source["type"] == "prometheus"
    assert source["url"].removeprefix("http://").partition(":")[0] in services
    (provider,) = YAML(typ="safe").load(provisioning / "dashboards" / "nightshift.yml")["providers"]
    mounted = {each.split(":")[1]: each.split(":")[0] for each in services["grafana"]["volumes"]}
    assert ROOT / mounted[provider["options"]["path"]] == ROOT / "deploy" / "grafana"
    assert ROOT / mounted["/etc/grafana/provisioning"] == provisioning
    assert "./deploy/prometheus:/etc/prometheus:ro" in services["prometheus"]["volumes"]


def test_prometheus_finds_the_services_of_the_compose_file() -> None:
    services = YAML(typ="safe").load(ROOT / "docker-compose.yml")["services"]
    (of_processes, of_ledger, _) = YAML(typ="safe").load(PROMETHEUS / "prometheus.yml")[
        "scrape_configs"
    ]
    (found,) = of_processes["dns_sd_configs"]
    modules = {
        name
        for name, each in services.items()
        if "build" in each
        and each["command"][:2] == ["python", "-m"]
        and each["command"][2] in {"api.server", "workers.processes"}
    }
    assert set(found["names"]) == modules - {"flower"}
    assert found["port"] == METRICS_PORT
    assert of_ledger["static_configs"] == [{"targets": [f"api:{METRICS_PORT}"]}]
