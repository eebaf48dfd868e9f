"""A fork server: training processes fork from one that has imported torch and transformers.

The imports take most of a short run. Each training process is a real process with its own
environment and can be killed. The environment has what a launcher would set; the launchers have
their own tests.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAZY = (
    "peft",
    "torch.utils.tensorboard",
    "torch.distributed",
    "transformers.models.bert.modeling_bert",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.t5.modeling_t5",
)
"""Modules that the program imports late."""


class ForkServer:
    """The process that forks training processes."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.workers.training.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def start(self, run: Path, *, log: Path, environment: dict[str, str]) -> TrainingProcess:
        request = {"run": str(run), "log": str(log), "environment": environment}
        return TrainingProcess(self, pid=self.ask(request))

    def ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class TrainingProcess:
    """A training process."""

    fork_server: ForkServer
    pid: int
    status: int | None = None

    def poll(self) -> int | None:
        """The exit status, negative for a signal; ``None`` while it runs."""
        if self.status is None:
            self.status = self.fork_server.ask({"poll": self.pid})
        return self.status

    def wait(self, *, seconds: float = 240) -> int:
        end = time.monotonic() + seconds
        while (status := self.poll()) is None:
            if time.monotonic() > end:
                self.kill()
                raise AssertionError("the training process did not end")
            time.sleep(0.01)
        return status

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()


def _serve() -> None:
    import importlib  # noqa: PLC0415

    from workers.training import train  # noqa: PLC0415

    for name in LAZY:
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        answer = _poll(request["poll"]) if "poll" in request else _fork(request, train)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _poll(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def _fork(request: dict[str, Any], script: Any) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(request["environment"])
        script.main(Path(request["run"]))
    finally:  # main() ends the process; if it does not, this fork must not go on
        os._exit(1)


if __name__ == "__main__":
    _serve()
