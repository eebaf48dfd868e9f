"""Processes of this worker that an operator had ended: their deaths count against no work."""

from __future__ import annotations

import time

_LONGEST = 60.0
"""Seconds for which a death is excused; the system may give its number to another process later."""

_excused: dict[int, tuple[float, str]] = {}


def excuse(pid: int, *, reason: str) -> None:
    """Say why the process is about to be ended; call it before."""
    now = time.monotonic()
    for earlier, (since, _) in list(_excused.items()):
        if now - since > _LONGEST:
            _excused.pop(earlier, None)
    _excused[pid] = (now, reason)


def reason(pid: int | None) -> str | None:
    """Why it was ended; ``None``: it died by itself."""
    since, why = _excused.get(pid or 0, (0.0, None))
    return why if why is not None and time.monotonic() - since <= _LONGEST else None
