"""Ports of this machine that nothing listens on."""

from __future__ import annotations

import random
import socket

RANGE = range(20_000, 30_000)
"""Below the ephemeral ports, so that no outgoing connection takes one between choice and use."""


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:``port`` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose(preferred: int | None = None, *, taken: frozenset[int] = frozenset()) -> int:
    """The preferred port if it is free, else any free one that is not ``taken``."""
    if preferred is not None and preferred not in taken and is_free(preferred):
        return preferred
    for port in random.sample(RANGE, k=len(RANGE)):
        if port not in taken and is_free(port):
            return port
    raise OSError(f"a port between {RANGE.start} and {RANGE.stop} must be free, but none is")


def several(count: int) -> list[int]:
    """``count`` different free ports."""
    chosen: list[int] = []
    for _ in range(count):
        chosen.append(choose(taken=frozenset(chosen)))
    return chosen
