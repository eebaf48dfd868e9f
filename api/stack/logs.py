"""``HOME/logs``: one file per service, appended to by every start."""

from __future__ import annotations

from pathlib import Path

LONGEST = 10 * 2**20
"""Bytes; a longer log is put aside, as ``.1``, when the stack starts."""


def path(home: Path, name: str) -> Path:
    """The log of one service."""
    log = home / "logs" / f"{name}.log"
    if log.exists() and log.stat().st_size > LONGEST:
        log.replace(log.with_suffix(".log.1"))
    return log


def tail(log: Path, *, lines: int = 20) -> str:
    """The last lines, indented."""
    with log.open("rb") as file:
        file.seek(max(file.seek(0, 2) - 2**16, 0))
        text = file.read().decode(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in text[-lines:])
