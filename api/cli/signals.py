"""SIGTERM as Ctrl-C: a command that is stopped from outside says the same."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from api.cli.failures import INTERRUPTED, TERMINATED


class Terminated(KeyboardInterrupt):
    """SIGTERM."""


def code(stop: KeyboardInterrupt) -> int:
    """The exit code, as a shell gives it to a process that a signal ended."""
    return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED


@dataclass
class Heard:
    """What a block was stopped by."""

    sigterm: bool = False


@contextmanager
def listening() -> Iterator[Heard]:
    """Raise ``Terminated`` for SIGTERM inside this block; only the main thread can."""
    heard = Heard()
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return

    def terminate(_number: int, _frame: FrameType | None) -> None:
        heard.sigterm = True
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield heard
    finally:
        signal.signal(signal.SIGTERM, before)
