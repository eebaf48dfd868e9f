"""`nightshift up`: Postgres, Valkey and all of Nightshift's own processes on one machine.

``run`` holds the terminal, ``background`` does not; ``info`` and ``stop`` are for everybody else.
The state folder holds the data, ``logs/``, ``stack.json`` and ``key``, the API key. Servers named
by ``DATABASE_URL`` and ``REDIS_URL`` are used in place of own ones.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
from rich.console import Console

from api.stack import lock, logs, losses, ports, postgres, private_files, record, services, valkey
from api.stack.failure import StackFailure
from api.stack.record import Process, StackInfo
from api.stack.service import Service
from api.stack.services import FLOWER_USER
from api.stack.supervisor import Slot, StackStopped, Supervisor
from jobs import environment, os_errors, settings
from jobs.errors import BadRequest

API_PORT = 8750
FLOWER_PORT = 5555
METRICS_PORT = 9750
"""Of the first service; the others have the next ones."""
TARGETS = "prometheus-targets.json"
START_SECONDS = 180.0
STOP_SLACK = 30.0
"""Seconds that the supervisor may take to end beyond what its services may take."""
ALREADY_RUNNING = 3
FOLDERS = ("logs", "work", "artefacts", "calibration", "flower")

Report = Callable[[str], None]
"""Takes a line for a person."""

Compose = Callable[[StackInfo], Sequence[Service]]
"""The services that stand on Postgres and Valkey; tests give their own."""


def _silent(_line: str) -> None:
    return


def run(
    home: Path,
    *,
    on_ready: Callable[[StackInfo], None] | None = None,
    compose: Compose = services.compose,
    preparations: Sequence[tuple[str, ...]] = services.PREPARATIONS,
    allow: Sequence[Path] = (),
) -> int:
    """Run the stack until Ctrl-C or SIGTERM; the exit code.

    Jobs may read and load what lies in the folders ``allow``.
    0 after a clean stop, 1 when a service cannot start, 3 when the stack runs already.
    """
    home = prepared(home)
    os.umask(environment.UMASK)
    allowed = _allowed(home, allow)
    with lock.hold(home) as ours:
        if not ours:
            _say(_already_running(home))
            return ALREADY_RUNNING
        _end_leftovers(home)
        stack = _Stack(home, compose=compose, preparations=preparations, allowed=allowed)
        return stack.run(on_ready)


def background(
    home: Path, *, allow: Sequence[Path] = (), variables: Mapping[str, str] | None = None
) -> StackInfo:
    """Start the stack apart from this process, or find the one that runs; return when ready.

    ``variables``: its environment; ``None``: that of this process. What is interrupted before it is
    ready ends again.
    """
    home = prepared(home)
    if found := info(home):
        return found
    options = [f"--allow={folder}" for folder in _allowed(home, allow)]
    with (home / "logs" / "up.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "api.stack", "up", "--home", str(home), *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=variables,
            cwd="/",  # what lies in the working folder must not be imported
            start_new_session=True,
        )
    try:
        return _await_ready(home, process)
    except BaseException:
        process.terminate()
        process.wait()
        raise


def info(home: Path) -> StackInfo | None:
    """The stack that runs on this state folder and is ready; ``None`` when there is none."""
    found = record.read(home)
    return found if found and found.ready and found.is_alive() else None


def stop(home: Path, *, now: bool = False, report: Report = _silent) -> bool:
    """Stop the stack and wait until it is gone; ``False`` when none ran.

    Hosts, workers and planners end first: training stores its checkpoint, chunks end. ``now``: they
    are killed, and the supervisor's log says what is lost.
    """
    found = record.read(home)
    if found is None:
        return False
    if not found.is_alive():
        return bool(_end_leftovers(home))
    os.kill(found.pid, signal.SIGQUIT if now else signal.SIGTERM)
    running, began = list(found.services), time.monotonic()
    while found.is_alive():  # not wait(): a zombie of another process never goes away
        waited = time.monotonic() - began
        for service in [each for each in running if each.find() is None]:
            running.remove(service)
            report(f"{service.name:<9} ended after {waited:.1f} s")
        if waited > found.stop_seconds + STOP_SLACK:
            os.kill(found.pid, signal.SIGKILL)
        time.sleep(0.1)
    _end_leftovers(home)
    return True


def remove(home: Path) -> None:
    """Stop the stack at once, and remove its state folder with the data of Postgres."""
    stop(home, now=True)
    for folder in (*map(Path, postgres.folders(home)), home):
        shutil.rmtree(folder, ignore_errors=True)


class _Stack:
    """One run of the stack, from the lock to the clean end."""

    def __init__(
        self,
        home: Path,
        *,
        compose: Compose,
        preparations: Sequence[tuple[str, ...]],
        allowed: tuple[str, ...],
    ) -> None:
        self._home = home
        self._allowed = allowed
        self._preparations = preparations
        self._compose = compose
        self._supervisor = Supervisor(report=_say, changed=self._record)
        self._info: StackInfo

    def run(self, on_ready: Callable[[StackInfo], None] | None) -> int:
        with self._supervisor.listening():
            code = 0
            try:
                self._start()
                if on_ready:
                    on_ready(self._info)
                self._supervisor.watch()
            except StackStopped:
                pass
            except StackFailure as failure:
                _say(f"the stack cannot start: {failure.message}")
                code = 1
            finally:
                self._stop()
            return code

    def _start(self) -> None:
        servers, self._info = _plan(self._home, self._allowed)
        self._supervisor.start(servers)
        if any(server.name == "postgres" for server in servers):
            postgres.ensure_database(self._info.database_url)
        for module in self._preparations:
            self._run_once(*module)
        self._supervisor.start(self._compose(self._info))
        self._info = replace(self._info, ready=True)
        self._record(self._supervisor.slots)
        _say(f"ready: {self._info.api_url}, the API key is in {self._home / 'key'}")

    def _stop(self) -> None:
        _say("stopping: training stores a checkpoint, chunks end; Ctrl-C ends them at once")
        began = time.monotonic()
        self._supervisor.stop(lost=self._lost)
        record.remove(self._home)
        _say(f"stopped after {time.monotonic() - began:.1f} s")

    def _lost(self) -> list[str]:
        """What an end at once loses, in words."""
        try:
            return losses.words(self._info.database_url)
        except Exception as error:  # noqa: BLE001 - what cannot be counted must not keep the end
            return [f"what is lost cannot be counted: {str(error).strip().partition(chr(10))[0]}"]

    def _run_once(self, *module: str) -> None:
        log = logs.path(self._home, "preparations")
        with log.open("ab") as output:
            done = subprocess.run(
                [sys.executable, "-m", *module],
                env={
                    **services.inherited(environment.SYSTEM, environment.PYTHON),
                    **services.environment(self._info),
                    **services.database(self._info),
                    "NIGHTSHIFT_API_KEY": self._info.key,
                },
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                start_new_session=True,
            )
        if done.returncode != 0:
            raise StackFailure(
                f"{' '.join(module)} ended with exit code {done.returncode}; "
                f"the end of {log}:\n{logs.tail(log)}"
            )

    def _record(self, slots: Sequence[Slot]) -> None:
        running = tuple(_process(slot) for slot in slots if slot.child)
        self._info = replace(self._info, services=running, stop_seconds=self._supervisor.patience)
        record.write(self._info)


def _process(slot: Slot) -> Process:
    assert slot.child is not None
    return Process(
        name=slot.service.name,
        pid=slot.child.pid,
        started=slot.child.started,
        stop_signal=slot.service.stop_signal,
        command=slot.service.command,
        address=slot.service.address,
        log=str(slot.service.log),
    )


def _plan(home: Path, allowed: tuple[str, ...]) -> tuple[list[Service], StackInfo]:
    """The servers to start, and the stack as it will be."""
    given = settings.Settings()
    free = ports.several(2)
    servers: list[Service] = []
    identity = private_files.get_or_create_secret(home / "identity")
    database_url, redis_url = given.database_url, given.redis_url
    if not _is_given("DATABASE_URL"):
        server, database_url = postgres.service(home, port=free[0], log=logs.path(home, "postgres"))
        servers.append(server)
    if not _is_given("REDIS_URL"):
        server, redis_url = valkey.service(home, port=free[1], log=logs.path(home, "valkey"))
        servers.append(server)
    servers = [
        replace(each, environment={**each.environment, record.IDENTITY: identity})
        for each in servers
    ]
    key = private_files.get_or_create_secret(home / "key", prefix="ns_")
    flower_password = private_files.get_or_create_secret(home / "flower-password")
    api_port = ports.choose(API_PORT, taken=frozenset(free))
    flower_port = ports.choose(FLOWER_PORT, taken=frozenset((*free, api_port)))
    metrics = _metrics_ports(given, taken=frozenset((*free, api_port, flower_port)))
    _write_targets(home, metrics)
    store = given.object_store_url if _is_given("OBJECT_STORE_URL") else objects_of(home)
    return servers, StackInfo(
        home=home,
        pid=os.getpid(),
        started=psutil.Process().create_time(),
        api_url=f"http://127.0.0.1:{api_port}",
        flower_url=f"http://{FLOWER_USER}:{flower_password}@127.0.0.1:{flower_port}",
        database_url=database_url,
        redis_url=redis_url,
        object_store_url=store,
        key=key,
        flower_password=flower_password,
        identity=identity,
        allowed=allowed,
        folders=postgres.folders(home),
        metrics=metrics,
    )


def _metrics_ports(given: settings.Settings, *, taken: frozenset[int]) -> dict[str, int]:
    """A port for each service that answers Prometheus; none if the setting is 0."""
    first = given.metrics_port if _is_given("METRICS_PORT") else METRICS_PORT
    chosen: dict[str, int] = {}
    for place, name in enumerate(services.MEASURED if first else ()):
        chosen[name] = ports.choose(first + place, taken=taken.union(chosen.values()))
    return chosen


def _write_targets(home: Path, metrics: dict[str, int]) -> None:
    """What Prometheus reads to find the services (``file_sd_configs``)."""
    targets = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"service": name}}
        for name, port in metrics.items()
    ]
    private_files.write(home / TARGETS, json.dumps(targets, indent=2) + "\n")


def prepared(home: Path) -> Path:
    """The absolute state folder, made when missing."""
    try:
        home = home.expanduser().resolve()
        home.parent.mkdir(parents=True, exist_ok=True)
        if not home.exists():
            home.mkdir(mode=0o700)
            if os.getuid() == 0:
                home.chmod(0o711)  # Postgres, which is not root, passes
        for name in FOLDERS:
            (home / name).mkdir(mode=0o700, exist_ok=True)
            (home / name).chmod(0o700)  # an earlier version may have made it
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle; NUL; no such user
        reason = os_errors.explain(error) if isinstance(error, OSError) else str(error)
        raise BadRequest(
            f"the state folder {home} cannot be made; name another with --home ({reason})"
        ) from error
    return home


def _allowed(home: Path, folders: Sequence[Path]) -> tuple[str, ...]:
    """The absolute folders. Raises ``StackFailure`` for one of the stack's own."""
    real = [folder.expanduser().resolve() for folder in folders]
    for folder in real:
        if not folder.is_dir():
            raise StackFailure(f"--allow must name a folder, and {folder} is none")
        if folder.is_relative_to(home):
            raise StackFailure(
                f"{folder} is in the state folder, and nothing in there is an input of a job"
            )
    return tuple(map(str, real))


def objects_of(home: Path) -> str:
    """The URL of the folder of objects, which is made when missing."""
    folder = home / "objects"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder.as_uri()


def _is_given(name: str) -> bool:
    return any(os.environ.get(variable) for variable in (name, f"NIGHTSHIFT_{name}"))


def _already_running(home: Path) -> str:
    found = record.read(home)
    if found is None or not found.is_alive():
        return f"already starting on {home}"
    return f"already running, pid {found.pid}, API {found.api_url}"


def _end_leftovers(home: Path) -> list[int]:
    found = record.read(home)
    pids = record.end_leftovers(found.services, identity=found.identity) if found else []
    for pid in pids:
        _say(f"ended pid {pid}, left behind by a stack that was killed")
    record.remove(home)
    return pids


def _await_ready(home: Path, process: subprocess.Popen[bytes]) -> StackInfo:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if found := info(home):
            return found
        if process.poll() not in (None, ALREADY_RUNNING):
            break
        time.sleep(0.1)
    raise StackFailure(f"the stack must be ready, but is not; see {home / 'logs' / 'up.log'}")


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        Console(soft_wrap=True, highlight=False, markup=False).print(text)
