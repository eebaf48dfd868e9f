"""On the path of a process, makes its engine die of one text, as a device fault would.

It stands in for a row that crashes native code: the product knows nothing of it.
"""

from __future__ import annotations

import builtins
import os
import signal
import sys
from types import ModuleType
from typing import Any

DEADLY = "this text ends the process"
_import = builtins.__import__


def _patched_import(name: str, *args: Any, **kwargs: Any) -> ModuleType:
    module = _import(name, *args, **kwargs)
    engine = sys.modules.get("workers.inference.engine")
    if engine is not None and hasattr(engine, "Classifier"):
        builtins.__import__ = _import
        _make_deadly(engine.Classifier)
    return module


def _make_deadly(classifier: Any) -> None:
    classify = classifier.classify

    def deadly(self: Any, texts: Any, **kwargs: Any) -> Any:
        if DEADLY in texts:
            os.kill(os.getpid(), signal.SIGKILL)
        return classify(self, texts, **kwargs)

    classifier.classify = deadly


builtins.__import__ = _patched_import
