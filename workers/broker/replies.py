"""Connections to Redis that never hold more than ``LONGEST`` bytes of one value of a reply.

BRPOP and a subscription return what the sender wrote, up to 512 MB. The rest of a longer value is
read in pieces and dropped, so that it costs time of the network and no memory (promise P5).
"""

from __future__ import annotations

from typing import Any

import redis
from redis._parsers.resp3 import _RESP3Parser
from redis._parsers.socket import SocketBuffer
from redis.utils import SENTINEL

LONGEST = 4 * 2**20
"""Bytes. Answers to questions of Flower can be this long; messages of ours are far shorter."""

KEPT = 64 * 2**10
_END = 2
"""Bytes of the line end behind each value."""


class Cut(bytes):
    """The first ``KEPT`` bytes of a value of ``size`` bytes."""

    size: int


class _Buffer(SocketBuffer):
    def read(self, length: int, timeout: float | object = SENTINEL) -> bytes:
        if length <= LONGEST:
            return super().read(length, timeout=timeout)
        kept, missing = b"", length + _END
        while missing:
            piece = self._buffer.read(min(missing, KEPT))
            missing -= len(piece)
            kept = (kept + piece)[:KEPT] if len(kept) < KEPT else kept
            if not piece:
                self._buffer.seek(0)
                self._buffer.truncate()
                self._read_from_socket(timeout=timeout)
        cut = Cut(kept)
        cut.size = length
        return cut


class _Parser(_RESP3Parser):
    def on_connect(self, connection: Any) -> None:
        super().on_connect(connection)
        socket, timeout = connection._sock, connection.socket_timeout  # noqa: SLF001
        self._buffer = _Buffer(socket, self.socket_read_size, timeout)


class _Bounded:
    def set_parser(self, parser_class: Any) -> None:
        ours = issubclass(parser_class, _RESP3Parser)
        super().set_parser(_Parser if ours else parser_class)  # type: ignore[misc]


class Connection(_Bounded, redis.Connection):
    """A plain connection."""


class SSLConnection(_Bounded, redis.SSLConnection):
    """One with TLS."""
