"""On the path of a worker, makes its parent process die of some messages as Celery gets them.

It stands in for a fault of Celery or of a library that no check of ours foresees. The messages are
those that have the text of the variable ``DEADLY_WORDS`` in their words.
"""

from __future__ import annotations

import builtins
import os
import signal
import sys
from types import ModuleType
from typing import Any

_import = builtins.__import__


def _patched_import(name: str, *args: Any, **kwargs: Any) -> ModuleType:
    module = _import(name, *args, **kwargs)
    virtual = sys.modules.get("kombu.transport.virtual.base")
    if virtual is not None and hasattr(virtual, "Management"):
        builtins.__import__ = _import
        _make_deadly(virtual.Transport)
    return module


def _make_deadly(transport: Any) -> None:
    deliver = transport._deliver

    def deadly(self: Any, message: Any, queue: str) -> None:
        if os.environ["DEADLY_WORDS"] in str(message["headers"].get("argsrepr")):
            os.kill(os.getpid(), signal.SIGKILL)
        deliver(self, message, queue)

    transport._deliver = deadly


builtins.__import__ = _patched_import
