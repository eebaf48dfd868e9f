"""Where an alias goes back to: the versions that it pointed to, as its moves tell."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple


class AliasChange(StrEnum):
    """What moved an alias."""

    SET = "set"  # a person
    PROMOTION = "promotion"  # a fine-tune whose version passed the gate
    ROLLBACK = "rollback"
    REMOVAL = "removal"  # a person made it point nowhere


class Move(NamedTuple):
    """One move of an alias; ``version`` is null where it was forgotten."""

    how: AliasChange
    version: int | None


def earlier(moves: Iterable[Move], *, current: int | None) -> list[int]:
    """The versions that a rollback goes to, the nearest first.

    ``moves`` are in order. Several rollbacks in a row go further and further back: what was rolled
    back from is not gone back to. ``current`` is where the alias points now, which a process that
    wrote no moves may have set.
    """
    stack: list[int] = []
    for how, version in moves:
        if version is None:
            continue
        if how is AliasChange.ROLLBACK:
            while stack and stack[-1] != version:
                stack.pop()
        if not stack or stack[-1] != version:
            stack.append(version)
    if current is not None:
        while stack and stack[-1] == current:
            stack.pop()
    return [version for version in reversed(stack) if version != current]
