"""`nightshift up` with real servers and stand-ins for Nightshift's own processes."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from api.stack import account, lock, postgres, record, up
from api.stack.account import Account
from api.stack.record import StackInfo
from tests.api.stack.exposure import readable_by_another_account
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
Up = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def home() -> Iterator[Path]:
    """A state folder that is not there yet, in an open folder."""
    parent = Path(tempfile.mkdtemp(prefix="nightshift-up-"))
    parent.chmod(0o755)
    yield parent / "state"
    shutil.rmtree(parent)


@pytest.fixture
def start() -> Iterator[Up]:
    """Start the stand-in stack on a state folder; whatever still runs at the end is stopped."""
    running: list[tuple[subprocess.Popen[str], Path]] = []

    def start(
        home: Path, *options: str, wait: bool = True, **environment: str
    ) -> subprocess.Popen[str]:
        clean = {k: v for k, v in os.environ.items() if k not in ("DATABASE_URL", "REDIS_URL")}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.api.stack.stand_ins", str(home), *options],
            cwd=ROOT,
            env={**clean, **environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append((process, home))
        if wait:
            wait_until(lambda: process.poll() is not None or up.info(home), seconds=60)
        return process

    yield start
    for process, home in running:
        process.terminate()
        process.communicate(timeout=60)
        up.stop(home)


def running(home: Path) -> StackInfo:
    found = up.info(home)
    assert found is not None
    return found


def service_pid(home: Path, name: str) -> int:
    return next((s.pid for s in running(home).services if s.name == name), 0)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").is_success
    except httpx.TransportError:
        return False


def family(home: Path) -> set[int]:
    """The pids of the supervisor and everything below it."""
    supervisor = psutil.Process(running(home).pid)
    return {supervisor.pid, *(child.pid for child in supervisor.children(recursive=True))}


def living(pids: set[int]) -> set[int]:
    alive = set()
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                alive.add(pid)
        except psutil.NoSuchProcess:
            continue
    return alive


def test_up_starts_everything_and_says_where(home: Path, start: Up) -> None:
    process = start(home)
    stack = running(home)
    assert answers(stack.api_url)
    assert postgres.answers(stack.database_url)
    assert [service.name for service in stack.services] == ["postgres", "valkey", "worker", "api"]
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    for service in stack.services:
        assert f"pid {service.pid}" in said
        assert service.log in said
    assert f"ready: {stack.api_url}" in said


def test_a_stack_that_is_removed_leaves_neither_process_nor_file(home: Path, start: Up) -> None:
    start(home)
    everyone, folders = family(home), [Path(folder) for folder in running(home).folders]
    up.remove(home)
    assert living(everyone) == set()
    assert [folder for folder in (home, *folders) if folder.exists()] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_cleanly(home: Path, start: Up, number: signal.Signals) -> None:
    process = start(home)
    everyone = family(home)
    assert len(everyone) >= 6
    process.send_signal(number)
    assert process.wait(timeout=60) == 0
    wait_until(lambda: not living(everyone))
    assert up.info(home) is None
    assert not (home / "stack.json").exists()
    assert "database system is shut down" in (home / "logs" / "postgres.log").read_text()


def test_a_signal_while_starting_stops_everything(home: Path, start: Up) -> None:
    process = start(home, wait=False)
    wait_until(lambda: record.read(home), seconds=30)
    process.terminate()
    assert process.wait(timeout=60) == 0
    assert not (home / "stack.json").exists()


def test_data_and_key_survive_a_restart(home: Path, start: Up) -> None:
    process = start(home)
    before = running(home)
    with psycopg.connect(before.database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    process.terminate()
    process.wait(timeout=60)
    start(home)
    after = running(home)
    assert after.key == before.key
    with psycopg.connect(after.database_url) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


@pytest.mark.parametrize("name", ["postgres", "valkey", "worker", "api"])
def test_a_killed_child_returns_where_it_was(home: Path, start: Up, name: str) -> None:
    start(home)
    before = running(home)
    killed = service_pid(home, name)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: service_pid(home, name) not in (0, killed), seconds=20)
    wait_until(lambda: postgres.answers(before.database_url), seconds=20)
    wait_until(lambda: answers(before.api_url), seconds=20)
    after = running(home)
    assert (after.api_url, after.database_url, after.redis_url, after.pid) == (
        before.api_url,
        before.database_url,
        before.redis_url,
        before.pid,
    )


def test_a_second_up_says_so_and_changes_nothing(home: Path, start: Up) -> None:
    start(home)
    before = running(home)
    second = start(home, wait=False)
    said = second.communicate(timeout=30)[0]
    assert second.returncode == 3
    assert f"already running, pid {before.pid}, API {before.api_url}" in said
    assert running(home) == before
    assert answers(before.api_url)


def test_a_copied_state_folder_is_another_stack(home: Path, start: Up) -> None:
    start(home)
    everyone = family(home)
    copy = home.with_name("copy")
    copy.mkdir()
    shutil.copy(home / "stack.json", copy / "stack.json")
    assert up.info(copy) is None
    assert not up.stop(copy)
    assert living(everyone) == everyone


def test_a_session_that_took_over_a_recorded_number_is_left_alone() -> None:
    bystander = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        leader = record.Process(
            name="worker",
            pid=bystander.pid,
            started=psutil.Process(bystander.pid).create_time() - 60,
            stop_signal=signal.SIGTERM,
            command=("sleep",),
            address="",
            log="",
        )
        assert record.end_leftovers([leader], identity="ours") == []
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_the_user_names_the_folders_that_jobs_may_read(home: Path, start: Up) -> None:
    allowed = home.with_name("data")
    allowed.mkdir()
    start(home, "--allow", str(allowed))
    worker = psutil.Process(service_pid(home, "worker"))
    assert worker.environ()["NIGHTSHIFT_ALLOWED_MODELS"] == f'["hf:", "{allowed}"]'
    assert worker.environ()["NIGHTSHIFT_ALLOWED_INPUTS"] == f'["{allowed.as_uri()}"]'
    assert str(home) in worker.environ()["NIGHTSHIFT_PRIVATE_FOLDERS"]


def test_a_folder_of_the_stack_cannot_be_allowed(home: Path, start: Up) -> None:
    (home / "artefacts").mkdir(parents=True)
    process = start(home, "--allow", str(home / "artefacts"), wait=False)
    assert process.wait(timeout=30) == 1


def test_two_state_folders_are_two_stacks(home: Path, start: Up) -> None:
    other = home.with_name("other")
    start(home)
    start(other)
    assert answers(running(home).api_url)
    assert answers(running(other).api_url)
    assert running(home).api_url != running(other).api_url


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has parent-death signals")
def test_a_killed_supervisor_takes_its_children_with_it(home: Path, start: Up) -> None:
    process = start(home)
    leaders = {service.pid for service in running(home).services}
    process.kill()
    process.wait()
    wait_until(lambda: not living(leaders), seconds=20)
    assert up.info(home) is None
    assert not lock.is_held(home)


def test_up_after_a_killed_supervisor_ends_what_is_left(home: Path, start: Up) -> None:
    process = start(home)
    everyone = family(home)
    worker = service_pid(home, "worker")
    grandchild = {child.pid for child in psutil.Process(worker).children()}
    process.kill()
    process.wait()
    wait_until(lambda: not living({worker}))
    assert living(grandchild) == grandchild
    start(home)
    assert answers(running(home).api_url)
    assert not living(everyone)


def test_stop_after_a_killed_supervisor_ends_what_is_left(home: Path, start: Up) -> None:
    process = start(home)
    everyone = family(home)
    process.kill()
    process.wait()
    assert up.stop(home)
    assert not living(everyone)
    assert not up.stop(home)


def test_a_process_that_took_over_a_recorded_pid_is_left_alone(home: Path, start: Up) -> None:
    process = start(home)
    process.kill()
    process.wait()
    stale = record.read(home)
    assert stale is not None
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        renamed = [{**vars(s), "pid": bystander.pid} for s in stale.services[:1]]
        assert (
            record.end_leftovers(
                [record.Process(**fields) for fields in renamed], identity=stale.identity
            )
            == []
        )
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_stop_ends_a_running_stack(home: Path, start: Up) -> None:
    process = start(home)
    everyone = family(home)
    assert up.stop(home)
    process.wait(timeout=10)
    assert not living(everyone)


def test_a_service_that_cannot_start_ends_the_stack_with_its_log(home: Path, start: Up) -> None:
    process = start(home, wait=False, BROKEN="1")
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert "broken ended with exit code 7, 5 times in a row" in said
    assert "no luck" in said
    assert not (home / "stack.json").exists()


def test_an_existing_server_is_used_when_given(home: Path, start: Up) -> None:
    start(home)
    given = running(home)
    other = home.with_name("other")
    start(other, DATABASE_URL=given.database_url, REDIS_URL=given.redis_url)
    stack = running(other)
    assert [service.name for service in stack.services] == ["worker", "api"]
    assert (stack.database_url, stack.redis_url) == (given.database_url, given.redis_url)


def test_secrets_are_readable_by_their_owner_alone(home: Path, start: Up) -> None:
    start(home)
    for name in ("key", "stack.json", "postgres-password", "valkey/valkey.conf"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600, name
    for name in ("objects", "logs", "valkey"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o700, name


def permissions(*paths: Path) -> dict[Path, tuple[int, int, int]]:
    found = {path: path.stat() for start in paths for path in (start, *start.parents)}
    return {path: (s.st_mode, s.st_uid, s.st_gid) for path, s in found.items()}


@pytest.mark.skipif(os.getuid() != 0, reason="only root has to give up its rights")
def test_under_a_closed_home_the_data_lie_elsewhere_and_no_permission_changes(
    tmp_path: Path, start: Up
) -> None:
    tmp_path.chmod(0o700)
    home = tmp_path / "state"
    before = permissions(tmp_path, Path(sys.prefix), Path("/var/lib"), Path.home())
    process = start(home)
    assert running(home).services[0].name == "postgres"
    folder = Path((home / "postgres-folder").read_text())
    try:
        assert folder.parent in (Path("/var/lib"), Path("/var/tmp"))
        assert stat.S_IMODE((folder / "data").stat().st_mode) == 0o700
        assert permissions(tmp_path, Path(sys.prefix), Path("/var/lib"), Path.home()) == before
        process.terminate()
        process.wait(timeout=60)
    finally:
        up.stop(home)
        shutil.rmtree(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root has to give up its rights")
def test_a_state_folder_that_exists_keeps_its_permissions(home: Path, start: Up) -> None:
    home.mkdir(mode=0o750)
    start(home)
    folder = Path((home / "postgres-folder").read_text())
    try:
        assert stat.S_IMODE(home.stat().st_mode) == 0o750
    finally:
        up.stop(home)
        if folder.parent != home:
            shutil.rmtree(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root has to give up its rights")
def test_programs_under_a_closed_home_are_copied_and_run(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    wheel = postgres._package()
    for name in (f"{postgres.PACKAGE}/{postgres.INSTALL}", f"{postgres.PACKAGE}.libs"):
        shutil.copytree(wheel.parent / name, tmp_path / name)
    monkeypatch.setattr(postgres, "_package", lambda: tmp_path / postgres.PACKAGE)
    nobody = account.unprivileged()
    assert nobody is not None
    home.mkdir()
    programs = postgres._programs(home, nobody)
    assert programs.is_relative_to(home)
    said = subprocess.run(
        [programs / "postgres", "--version"],
        user=nobody.uid,
        group=nobody.gid,
        extra_groups=[],
        cwd="/",
        check=True,
        capture_output=True,
    )
    assert b"PostgreSQL" in said.stdout


def python_for(user: int) -> tuple[str, dict[str, str]] | None:
    """An interpreter, and its variables, with which that user can import what the stack needs."""
    who = Account(uid=user, gid=user)
    site = Path(psycopg.__file__).parents[1]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    variables = {"PYTHONPATH": f"{ROOT}{os.pathsep}{site}", "HOME": "/", "PYTHONSAFEPATH": "1"}
    for python in (sys.executable, shutil.which(version, path="/usr/local/bin:/usr/bin") or ""):
        if not account.can_reach(Path(python).resolve(), account=who):
            continue
        done = subprocess.run(
            [python, "-c", "import api.stack.up"],
            env={**os.environ, **variables},
            cwd="/",
            check=False,
            capture_output=True,
            user=user,
            group=user,
            extra_groups=[],
        )
        if done.returncode == 0:
            return python, variables
    return None


@pytest.mark.skipif(os.getuid() != 0, reason="root alone can become another user")
def test_up_works_as_an_ordinary_user(home: Path) -> None:
    user = pwd.getpwnam("daemon").pw_uid
    found = python_for(user)
    if found is None:
        pytest.skip("no interpreter that an ordinary user may read has what the stack needs")
    python, variables = found
    os.chown(home.parent, user, user)
    process = subprocess.Popen(
        [python, "-m", "tests.api.stack.stand_ins", str(home)],
        cwd="/",
        user=user,
        group=user,
        extra_groups=[],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: process.poll() is not None or up.info(home), seconds=60)
        assert process.poll() is None, process.communicate()[0]
        stack = running(home)
        owners = {psutil.Process(service.pid).uids().real for service in stack.services}
        assert owners == {user}
        assert answers(stack.api_url)
        assert home.stat().st_mode & 0o777 == 0o700
        assert readable_by_another_account(home) == []
    finally:
        process.terminate()
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 0, said
