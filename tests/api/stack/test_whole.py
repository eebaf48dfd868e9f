"""The stack as users get it: every process is the real one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from api.stack import up
from api.stack.record import StackInfo
from tests.api.stack.exposure import (
    CANARIES,
    NEEDED,
    processes,
    readable_by_another_account,
    secrets,
)
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    parent = Path(tempfile.mkdtemp(prefix="nightshift-whole-"))
    parent.chmod(0o755)
    yield parent / "state"
    shutil.rmtree(parent)


@pytest.fixture(scope="module")
def stack(home: Path) -> Iterator[StackInfo]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DATABASE_URL", "REDIS_URL", "OBJECT_STORE_URL"):
            patch.delenv(name, raising=False)
            patch.delenv(f"NIGHTSHIFT_{name}", raising=False)
        for name, value in CANARIES.items():
            patch.setenv(name, value)
        yield up.background(home)
    up.stop(home)


def command(home: Path, word: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "api.stack", word, "--home", str(home)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_every_service_runs(stack: StackInfo) -> None:
    names = [service.name for service in stack.services]
    assert names == [
        *("postgres", "valkey", "control", "planner", "pool", "host", "api", "flower"),
    ]
    assert all(service.find() for service in stack.services)


def test_the_api_knows_the_key(stack: StackInfo) -> None:
    bearer = {"Authorization": f"Bearer {stack.key}"}
    assert httpx.get(f"{stack.api_url}/v1/jobs", headers=bearer).status_code == 200
    assert httpx.get(f"{stack.api_url}/v1/jobs").status_code == 401


def test_flower_wants_its_password(stack: StackInfo) -> None:
    url = httpx.URL(stack.flower_url)
    assert httpx.get(url).status_code == 200
    assert httpx.get(url.copy_with(username="", password="")).status_code == 401


def test_flower_takes_orders_from_its_own_login_alone(stack: StackInfo) -> None:
    assert stack.flower_password != stack.key
    url = httpx.URL(stack.flower_url).copy_with(path="/api/worker/shutdown/nobody")
    assert httpx.post(url.copy_with(username="", password="")).status_code == 401
    assert httpx.post(url).status_code == 404


def test_no_secret_is_among_the_arguments_of_a_process(stack: StackInfo) -> None:
    for name, process in processes(stack):
        arguments = " ".join(process.cmdline())
        assert not [secret for secret, value in secrets(stack).items() if value in arguments], name


def test_each_process_has_only_the_secrets_that_it_needs(stack: StackInfo) -> None:
    for name, process in processes(stack):
        variables = "\n".join(process.environ().values())
        found = {secret for secret, value in secrets(stack).items() if value in variables}
        assert found <= NEEDED[name], name


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the umask of a process")
def test_what_any_process_writes_is_for_its_own_account(stack: StackInfo) -> None:
    for name, process in processes(stack):
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert "Umask:\t0077" in status, name


def test_no_other_account_reads_anything_in_the_state_folder(stack: StackInfo, home: Path) -> None:
    assert readable_by_another_account(home, *map(Path, stack.folders)) == []


def test_control_leads_within_seconds(stack: StackInfo) -> None:
    def leads() -> bool:
        with psycopg.connect(stack.database_url) as connection:
            return connection.execute("SELECT FROM control_status").fetchone() is not None

    wait_until(leads, seconds=20)


def test_background_finds_the_stack_that_runs(stack: StackInfo, home: Path) -> None:
    assert up.background(home).pid == stack.pid


def test_status_names_every_service(stack: StackInfo, home: Path) -> None:
    said = command(home, "status")
    assert said.returncode == 0
    assert stack.api_url in said.stdout
    assert all(f"pid {service.pid}" in said.stdout for service in stack.services)


def test_a_second_up_exits_with_three(stack: StackInfo, home: Path) -> None:
    said = command(home, "up")
    assert said.returncode == 3
    assert f"already running, pid {stack.pid}, API {stack.api_url}" in said.stdout


def test_a_start_that_is_interrupted_leaves_nothing_behind() -> None:
    parent = Path(tempfile.mkdtemp(prefix="nightshift-interrupted-"))
    parent.chmod(0o755)
    program = (  # a run of the tests in the background ignores SIGINT
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        f"from api.stack import up; up.background(up.Path({str(parent / 'state')!r}))"
    )
    servers = ("DATABASE_URL", "REDIS_URL", "OBJECT_STORE_URL")
    caller = subprocess.Popen(
        [sys.executable, "-c", program],
        env={name: value for name, value in os.environ.items() if not name.endswith(servers)},
        stderr=subprocess.DEVNULL,
    )
    wait_until((parent / "state" / "stack.json").exists, seconds=60)
    everyone = psutil.Process(caller.pid).children(recursive=True)
    assert everyone
    caller.send_signal(signal.SIGINT)
    caller.wait(timeout=60)
    wait_until(lambda: not any(process.is_running() for process in everyone))
    assert up.info(parent / "state") is None
    shutil.rmtree(parent)


def test_stop_leaves_nothing_behind(stack: StackInfo, home: Path) -> None:
    everyone = psutil.Process(stack.pid).children(recursive=True)
    assert len(everyone) >= len(stack.services)
    assert command(home, "stop").returncode == 0
    wait_until(lambda: not any(process.is_running() for process in everyone))
    assert command(home, "status").returncode == 1
    assert up.info(home) is None
