"""Ports of this machine that nothing listens on.

A port that was chosen is reserved for this process as long as it lives, so that two stacks which
start at the same time do not choose the same: the second would take the other's server for
its own. The reservation is a name in Linux's abstract namespace of sockets, which all accounts
share and which ends with the process; other systems have none.
"""

from __future__ import annotations

import random
import socket
import sys

RANGE = range(20_000, 30_000)
"""Below the ephemeral ports, so that no outgoing connection takes one between choice and use."""

_reserved: dict[int, socket.socket] = {}


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:``port`` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def reserve(port: int) -> bool:
    """Whether this process has the port now, rather than another stack."""
    if port in _reserved or sys.platform != "linux":
        return True
    holder = socket.socket(socket.AF_UNIX)
    try:
        holder.bind(f"\0nightshift-port-{port}")
    except OSError:
        holder.close()
        return False
    _reserved[port] = holder
    return True


def choose(preferred: int | None = None, *, taken: frozenset[int] = frozenset()) -> int:
    """The preferred port if it is free, else any free one that is not ``taken``."""
    first = [] if preferred is None else [preferred]
    for port in (*first, *random.sample(RANGE, k=len(RANGE))):
        if port not in taken and is_free(port) and reserve(port):
            return port
    raise OSError(f"a port between {RANGE.start} and {RANGE.stop} must be free, but none is")


def several(count: int) -> list[int]:
    """``count`` different free ports."""
    chosen: list[int] = []
    for _ in range(count):
        chosen.append(choose(taken=frozenset(chosen)))
    return chosen
