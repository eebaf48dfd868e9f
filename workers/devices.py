"""Which accelerators a pool process takes, round robin over those that the host shows."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
_DEVICE = re.compile(r"nvidia(\d+)")


def visible(environment: Mapping[str, str], *, names: list[str]) -> list[str]:
    """CUDA devices that a process may take: those in the variable, else all that the host has.

    ``names`` are the entries of ``/dev``.
    """
    if VISIBLE in environment:
        return [entry.strip() for entry in environment[VISIBLE].split(",") if entry.strip()]
    return sorted((match[1] for name in names if (match := _DEVICE.fullmatch(name))), key=int)


def here() -> list[str]:
    """The devices of this host that this process may take."""
    return visible(os.environ, names=[path.name for path in Path("/dev").iterdir()])


def take(index: int, *, count: int) -> None:
    """Show this process ``count`` devices only, by its place among its siblings.

    That must be before torch is there. Where there are fewer, it is shown all.
    """
    found = here()
    if found:
        mine = range(index * count, index * count + min(count, len(found)))
        os.environ[VISIBLE] = ",".join(found[place % len(found)] for place in mine)
