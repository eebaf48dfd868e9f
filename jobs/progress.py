"""Progress of long work: what does it calls ``beat`` now and then, and is interrupted by it."""

from __future__ import annotations

from collections.abc import Callable

Beat = Callable[[], None]
"""Called while work goes on. Raises ``LeaseLost``, or another error, to interrupt it."""


def no_beat() -> None:
    """For work that no lease depends on."""
