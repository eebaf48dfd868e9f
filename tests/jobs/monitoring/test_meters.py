"""What a process counts, alone and beside its siblings."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from jobs.monitoring import catalogue, meters
from jobs.monitoring.catalogue import MOST_VALUES, OTHER, Source

CHILD = """
import sys
from jobs.monitoring import catalogue, meters
meters.join(int(sys.argv[1]))
meters.add(catalogue.ROWS, int(sys.argv[2]), pool="cpu", kind="classify", outcome="ok")
meters.observe(catalogue.CHUNK_SECONDS, 0.3, stage="compute")
meters.level(catalogue.ENGINES_LOADED, float(sys.argv[3]))
"""


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    yield
    meters.end()


def child(slot: int, *, rows: int, engines: int) -> None:
    """A process of the worker that dies without a word."""
    program = f"{CHILD}\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", program, str(slot), str(rows), str(engines)], check=False)


def rows(registry: CollectorRegistry) -> float | None:
    labels = {"pool": "cpu", "kind": "classify", "outcome": "ok"}
    return registry.get_sample_value("nightshift_rows_total", labels)


def test_nothing_is_counted_before_the_beginning() -> None:
    meters.add(catalogue.LEASES_LOST)
    assert not meters.counts()
    registry = meters.begin(Source.POOL)
    assert registry.get_sample_value("nightshift_leases_lost_total") == 0


def test_what_is_known_is_there_from_the_start_at_zero() -> None:
    registry = meters.begin(Source.POOL)
    poison = {"code": "row_crashed_worker"}
    assert registry.get_sample_value("nightshift_error_rows_total", poison) == 0
    assert registry.get_sample_value("nightshift_http_requests_total", {}) is None


def test_a_label_has_a_bounded_number_of_values() -> None:
    registry = meters.begin(Source.POOL)
    for number in range(MOST_VALUES + 20):
        meters.add(catalogue.TOKENS, pool=f"pool-{number}", kind="embed")
    found = [
        sample
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "nightshift_tokens_total"
    ]
    assert len(found) == MOST_VALUES + 1
    assert [each.value for each in found if each.labels["pool"] == OTHER] == [20]


@pytest.mark.slow
def test_the_parent_answers_for_processes_that_are_dead(tmp_path: Path) -> None:
    registry = meters.begin_with_children(Source.POOL, tmp_path, slots=2)
    meters.add(catalogue.PROCESS_DEATHS)
    child(0, rows=3, engines=2)
    child(1, rows=4, engines=1)
    files = sorted(tmp_path.iterdir())
    child(0, rows=5, engines=1)
    assert rows(registry) == 12
    assert registry.get_sample_value("nightshift_worker_process_deaths_total") == 1
    assert registry.get_sample_value("nightshift_engines_loaded") == 2  # what the dead one had not
    count = registry.get_sample_value("nightshift_chunk_stage_seconds_count", {"stage": "compute"})
    assert count == 3
    assert sorted(tmp_path.iterdir()) == files


def test_a_process_that_finds_no_folder_counts_nothing_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(meters.FOLDER, str(tmp_path / "gone"))
    meters.join(0)
    meters.add(catalogue.LEASES_LOST)
    assert not meters.counts()


def test_files_are_allocated_as_a_whole(tmp_path: Path) -> None:
    meters.begin_with_children(Source.POOL, tmp_path, slots=1)
    sizes = {path.name: path.stat() for path in tmp_path.iterdir()}
    assert len(sizes) == 6
    assert all(each.st_blocks * 512 >= meters.FILE_BYTES for each in sizes.values())
