"""Ending with the parent process: the kernel sends a signal when it dies, or a thread looks.

Nothing that Nightshift starts may outlive what started it: a worker's pool process would keep the
device, a service of the stack its port, a training program its rank.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

ORPHANED = 73
"""Exit status of a process that ended because its parent was gone."""

POLL_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1


def in_child(sig: signal.Signals = signal.SIGKILL) -> Callable[[], None] | None:
    """The ``preexec_fn`` of a child: ask the kernel for ``sig`` when this process dies.

    It runs after a change of user, which would clear the request. The kernel means the parent
    *thread*: for a child started elsewhere than in the main thread there is none.
    """
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, sig)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask


def kill_with_parent(*, orphan_has_parent_one: bool = False) -> None:
    """Ask the kernel to kill this process when its parent dies; nothing where that is not Linux.

    ``orphan_has_parent_one``: whether a parent of 1 means that the real one is dead already.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent or (parent == 1 and orphan_has_parent_one):
        os._exit(1)


def watch_parent() -> None:
    """End this process soon after its parent, by a thread: for a child of a thread of its parent's.

    Celery starts pool processes so.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os._exit(ORPHANED)

    threading.Thread(target=watch, name="orphan-watch", daemon=True).start()
