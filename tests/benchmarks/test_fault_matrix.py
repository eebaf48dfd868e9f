"""The driver of the fault matrix: its pure parts, its black holes, and two real cells."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.fault_matrix import cells, page, results, timeline
from benchmarks.fault_matrix.cells import CELLS, NO_SENSE, Fault, Target, Work
from benchmarks.fault_matrix.links import Link
from benchmarks.fault_matrix.timeline import Sample
from jobs.states import JobState
from tests.support.waiting import wait_until

RUNNING, DONE = JobState.RUNNING, JobState.SUCCEEDED


def test_every_target_has_its_four_cells_under_each_work_or_a_reason() -> None:
    for work in Work:
        for target in Target:
            faults = {cell.fault for cell in CELLS if (cell.work, cell.target) == (work, target)}
            assert faults == (set() if (work, target) in NO_SENSE else set(Fault))


def test_cells_are_chosen_by_patterns() -> None:
    assert cells.chosen([]) == list(CELLS)
    assert {cell.target for cell in cells.chosen(["bulk/planner*"])} == {
        Target.PLANNING,
        Target.FINALIZING,
    }


def test_a_fault_outlasts_every_lease() -> None:
    leases = [value for name, value in cells.SETTINGS.items() if name.endswith("lease_seconds")]
    assert max(leases) < cells.FAULT_SECONDS / 2


@pytest.mark.parametrize(
    ("before", "after", "moves"),
    [
        (Sample(0, RUNNING), Sample(1, RUNNING), False),
        (Sample(0, RUNNING, done=3), Sample(1, RUNNING, done=4), True),
        (Sample(0, RUNNING, planned=3), Sample(1, RUNNING, planned=4), True),
        (Sample(0, RUNNING, done=3), Sample(1, DONE, done=3), True),
        (Sample(0, RUNNING, run=1, step=5), Sample(1, RUNNING, run=1, step=6), True),
        (Sample(0, RUNNING, run=1, step=5), Sample(1, RUNNING, run=2, step=0), False),
        (Sample(0, RUNNING, run=2, step=0), Sample(1, RUNNING, run=2, step=3), True),
    ],
)
def test_a_job_goes_on_when_its_work_does(before: Sample, after: Sample, *, moves: bool) -> None:
    assert timeline.went_on(before, after) is moves


def test_recovery_and_pause_are_read_from_the_samples() -> None:
    done = [(0.0, 0), (1.0, 1), (2.0, 1), (9.0, 1), (9.5, 2), (10.0, 3)]
    samples = [Sample(at, RUNNING, done=count) for at, count in done]
    assert timeline.recovery(samples, since=7.0) == 2.5
    assert timeline.pause(samples, since=0.5) == 8.5
    assert timeline.recovery(samples, since=10.0) is None
    assert timeline.recovery([*samples, Sample(11.0, DONE)], since=12.0) == 0.0


def test_results_are_kept_cell_by_cell(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    record = {"holds": True, "problems": [], "waste": {}}
    for cell in (CELLS[1], CELLS[0]):
        results.keep("cells", cell.name, record, machine={}, file=file)
    assert set(results.read(file)["cells"]) == {CELLS[0].name, CELLS[1].name}
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_the_page_names_a_cell_that_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    name = CELLS[0].name
    monkeypatch.setitem(cells.CONSEQUENCES, name, "the user waits")
    record = {
        "at": "2026-01-01T00:00:00",
        "load": 1.0,
        "holds": False,
        "problems": ["the job failed: why"],
        "waste": {"chunks again": 2, "crashes": 0},
    }
    found = {
        "machine": {"cores": 2, "processor": "one"},
        "settings": cells.SETTINGS,
        "fault_seconds": 15.0,
        "undisturbed": {},
        "cells": {name: record},
    }
    text = page.page(found)
    assert "1 of 68 cells were run, and 0 of them hold" in text
    assert f"| {name} | the job failed: why | the user waits |" in text
    assert "| never | never | chunks again: 2 | 1.0 |" in text


def test_each_cell_that_does_not_hold_has_a_consequence() -> None:
    broken = [name for name, each in results.read()["cells"].items() if not each["holds"]]
    assert [name for name in broken if cells.consequence(name) is None] == []


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends everything back."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection:
                while block := connection.recv(1000):
                    connection.sendall(block)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def connected(link: Link) -> socket.socket:
    return socket.create_connection(("127.0.0.1", link.port), timeout=0.3)


def test_a_cut_link_answers_nothing_and_closes_nothing(echo: int) -> None:
    link = Link(echo)
    with connected(link) as client:
        client.sendall(b"one")
        assert client.recv(10) == b"one"
        link.cut()
        client.sendall(b"two")
        with pytest.raises(TimeoutError):
            client.recv(10)
        with pytest.raises(TimeoutError):
            connected(link)
        assert _unacknowledged(client) == 3
        link.join()
        client.settimeout(10)
        assert client.recv(10) == b"two"
    link.close()


def _unacknowledged(client: socket.socket) -> int:
    """Bytes that were sent and that the other side's kernel has not acknowledged (SIOCOUTQ)."""
    import fcntl  # noqa: PLC0415
    import struct  # noqa: PLC0415

    return int(struct.unpack("i", fcntl.ioctl(client, 0x5411, b"\0" * 4))[0])


def test_a_trap_holds_the_request_that_matches_and_no_other(echo: int) -> None:
    link = Link(echo)
    with link.trap(b"PUT ", count=2) as trap, connected(link) as client:
        for words in (b"GET 1", b"PUT 1"):
            client.sendall(words)
            assert client.recv(10) == words
        client.sendall(b"PUT 2")
        assert trap.sprung.wait(5)
        with pytest.raises(TimeoutError):
            client.recv(10)
        trap.release()
        assert client.recv(10) == b"PUT 2"
    link.close()


def driver(file: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.fault_matrix", "--file", str(file), *arguments]


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["bulk/Valkey/killed", "fine-tune/control leader/black hole"])
def test_a_cell_is_run_and_holds(name: str, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    done = subprocess.run(driver(file, "--only", name), check=False, timeout=580)
    assert done.returncode == 0
    record = json.loads(file.read_bytes())["cells"][name]
    assert record["problems"] == []
    assert record["recovery_seconds"] < 60


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that the account of Postgres can reach: those of pytest are closed to it."""
    made = Path(tempfile.mkdtemp(prefix="nightshift-test-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_killed_driver_leaves_no_process_behind(tmp_path: Path, folder: Path) -> None:
    command = driver(tmp_path / "results.json", "--only", "bulk/Postgres/stopped")
    process = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(folder)})
    started = psutil.Process(process.pid)
    known: set[psutil.Process] = set()

    def is_stopped() -> bool:
        known.update(started.children(recursive=True))
        assert process.poll() is None
        return any(_status(each) == psutil.STATUS_STOPPED for each in known)

    wait_until(is_stopped, seconds=200, every=0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(each.is_running() for each in known), seconds=60, every=0.2)


def _status(process: psutil.Process) -> str | None:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return None
