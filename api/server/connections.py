"""Open connections, and which of them make room for a new one (promise P12).

A client that sends its request completes its head within moments. So the connection that has waited
longest with half a head, or with none, goes first: connections that are held open for nothing cost
the others nothing, wherever they come from.
"""

from __future__ import annotations

from collections import defaultdict
from enum import Enum, auto
from typing import Protocol

WAITING_PER_ADDRESS = 256
"""Connections of one address that may be without a request; more end after ``GRACE_SECONDS``."""

GRACE_SECONDS = 1.0
"""How old a connection is that ends because its address has too many."""


class Phase(Enum):
    """What a connection waits for."""

    HEAD = auto()
    """The end of a request's head."""
    IDLE = auto()
    """The next request, after an answer."""
    BODY = auto()
    """The rest of a request's body."""
    ANSWER = auto()
    """The application."""
    DISCARD = auto()
    """The end of a body that is not read any more: its request is answered."""


class Connection(Protocol):
    """What is open, as far as it matters here."""

    address: str

    def drop(self) -> None:
        """Close it at once."""

    def age(self) -> float:
        """Seconds in its phase."""


class Connections:
    """Every open connection of the process; used by its event loop alone."""

    def __init__(self, most: int) -> None:
        """``most``: connections that may be open at once."""
        self._most = most
        self._open: set[Connection] = set()
        self._heads: dict[Connection, None] = {}  # oldest first, as is ``_answered``
        self._answered: dict[Connection, None] = {}
        self._by_address: defaultdict[str, dict[Connection, None]] = defaultdict(dict)

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, new: Connection) -> bool:
        """Count a new connection; False where there is no room, and none that could make room."""
        if len(self._open) >= self._most and not self._make_room():
            return False
        self._open.add(new)
        return True

    def move(self, one: Connection, phase: Phase) -> None:
        """Note the phase that a connection has entered."""
        self._forget(one)
        if phase is Phase.HEAD:
            self._heads[one] = None
            self._by_address[one.address][one] = None
            self._thin_out(one.address)
        elif phase in (Phase.IDLE, Phase.DISCARD):
            self._answered[one] = None

    def leave(self, one: Connection) -> None:
        """Forget a connection that has ended."""
        self._open.discard(one)
        self._forget(one)

    def _make_room(self) -> bool:
        oldest = next(iter(self._heads), None) or next(iter(self._answered), None)
        if oldest is None:
            return False
        self._end(oldest)
        return True

    def _thin_out(self, address: str) -> None:
        waiting = self._by_address[address]
        oldest = next(iter(waiting))
        if len(waiting) > WAITING_PER_ADDRESS and oldest.age() > GRACE_SECONDS:
            self._end(oldest)

    def _end(self, one: Connection) -> None:
        self.leave(one)
        one.drop()

    def _forget(self, one: Connection) -> None:
        self._heads.pop(one, None)
        self._answered.pop(one, None)
        self._by_address[one.address].pop(one, None)
        if not self._by_address[one.address]:
            del self._by_address[one.address]
