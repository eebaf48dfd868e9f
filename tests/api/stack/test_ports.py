"""The choice of a port."""

from __future__ import annotations

import socket

from api.stack import ports


def test_the_preferred_port_is_taken_when_free_and_left_when_not() -> None:
    free = ports.choose()
    assert ports.choose(free) == free
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", free))
        holder.listen()
        assert ports.choose(free) != free
    assert ports.choose(free, taken=frozenset({free})) != free
