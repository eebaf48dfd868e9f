"""On the path of a process, makes its main thread hang for ever at SIGUSR2, as a deadlock would."""

from __future__ import annotations

import signal
import threading

signal.signal(signal.SIGUSR2, lambda *_: threading.Event().wait())
