"""What ends `nightshift up` with a reason."""

from __future__ import annotations

from jobs.errors import NightshiftError


class StackFailure(NightshiftError):
    """The stack cannot start; the message says why and what to do."""

    code = "stack_failed"
