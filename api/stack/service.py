"""One child process of the stack: what it is (`Service`) and the running thing (`Child`).

A child has its own session, so a Ctrl-C on the terminal reaches the supervisor alone, and on Linux
a parent-death signal, so that it ends with a supervisor that was killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from api.stack.account import Account
from jobs import environment, parent_death

SETTLED = 1.0
"""Seconds after which a child without a probe counts as started."""


@dataclass(frozen=True)
class Service:
    """The definition of one child; starting it again gives the same address and data."""

    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    """All that the child gets beside ``environment.SYSTEM`` of the supervisor's own."""
    address: str = ""
    """What a person would connect to, for the terminal."""
    probe: Callable[[], bool] | None = None
    """Whether it answers; without one, being alive is enough."""
    account: Account | None = None
    """The account it runs as; ``None``: that of the supervisor."""
    stop_signal: signal.Signals = signal.SIGTERM
    """Asks for a clean end."""
    orphan_signal: signal.Signals = signal.SIGKILL
    """Sent by the kernel when the supervisor is gone."""
    grace_seconds: float = 10.0
    """How long a clean end may take before SIGKILL."""
    hurried_seconds: float = 0.0
    """The same, once somebody has asked for an end at once."""
    stop_stage: int = 0
    """Of those that were started side by side, the lowest stage is asked to stop first; the next
    follows when its services have ended."""


class Child:
    """One running process of a service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._process = _spawn(service)
        self._since = time.monotonic()
        self.started = psutil.Process(self._process.pid).create_time()

    @property
    def pid(self) -> int:
        """The process, and its session and group: they have the same number."""
        return self._process.pid

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._since

    @property
    def ended(self) -> int | None:
        """Its exit code, negative for a signal; ``None`` while it runs."""
        return self._process.poll()

    def is_ready(self) -> bool:
        """Whether it runs and answers."""
        if self.ended is not None:
            return False
        probe = self.service.probe
        return probe() if probe else self.age >= SETTLED

    def ask_to_stop(self) -> None:
        """Send the signal for a clean end."""
        if self.ended is None:
            self._process.send_signal(self.service.stop_signal)

    def may_finish(self, waited: float, *, hurried: bool) -> bool:
        """Whether it still runs and may go on to its own end, so long after it was asked to."""
        service = self.service
        patience = service.hurried_seconds if hurried else service.grace_seconds
        return self.ended is None and waited < patience

    def kill(self) -> None:
        """End the process and what is left of its group, at once; wait until it is gone."""
        kill_group(self.pid)
        self._process.wait()

    def stop(self) -> None:
        """End it cleanly, or by force after its grace."""
        self.ask_to_stop()
        try:
            self._process.wait(timeout=self.service.grace_seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill()


def kill_group(leader: int) -> None:
    """SIGKILL to a process group; one that is gone is no error."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # macOS raises the latter for zombies
        return


def _spawn(service: Service) -> subprocess.Popen[bytes]:
    account = service.account
    with service.log.open("ab") as log:
        return subprocess.Popen(
            service.command,
            env=environment.chosen(os.environ, environment.SYSTEM) | dict(service.environment),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            preexec_fn=parent_death.in_child(service.orphan_signal),  # noqa: PLW1509 - two system calls
        )
