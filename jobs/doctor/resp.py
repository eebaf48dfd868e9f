"""The protocol of Redis and Valkey, spoken by hand: ``jobs`` has no client of theirs.

Only what a check needs: log in, ask, read one answer.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import ExitStack
from typing import Self
from urllib.parse import SplitResult, unquote, urlsplit

from jobs.errors import ControlFlow

PORT = 6379
MOST_BYTES = 2**20
"""Of one answer."""

Reply = str | int | None | list["Reply"]


class CommandRefused(ControlFlow):
    """The server answered with an error."""


class RespConnection:
    """One connection, logged in."""

    def __init__(self, url: str, *, seconds: float) -> None:
        """Raises ``OSError``, ``ValueError`` for a URL of another kind, and ``CommandRefused``."""
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            raise ValueError("only redis:// and rediss:// with a host can be checked")
        with ExitStack() as stack:
            line = stack.enter_context(
                socket.create_connection((parts.hostname, parts.port or PORT), timeout=seconds)
            )
            if parts.scheme == "rediss":
                context = ssl.create_default_context()
                line = stack.enter_context(
                    context.wrap_socket(line, server_hostname=parts.hostname)
                )
            self._line = line
            self._file = stack.enter_context(line.makefile("rb"))
            self._log_in(parts)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ask(self, *words: str) -> Reply:
        """The answer to one command."""
        parts = [f"*{len(words)}\r\n".encode()]
        for word in words:
            data = word.encode()
            parts += [f"${len(data)}\r\n".encode(), data, b"\r\n"]
        self._line.sendall(b"".join(parts))
        return self._read()

    def info(self, section: str) -> dict[str, str]:
        """A section of ``INFO``."""
        answer = self.ask("INFO", section)
        lines = answer.splitlines() if isinstance(answer, str) else []
        pairs = (line.partition(":") for line in lines if not line.startswith("#"))
        return {name: value.strip() for name, colon, value in pairs if colon}

    def _log_in(self, parts: SplitResult) -> None:
        if parts.password:
            user = [unquote(parts.username)] if parts.username else []
            self.ask("AUTH", *user, unquote(parts.password))
        if (database := parts.path.strip("/")) and database != "0":
            self.ask("SELECT", database)
        self.ask("PING")

    def _read(self) -> Reply:
        line = self._file.readline(MOST_BYTES)
        if not line.endswith(b"\r\n"):
            raise ConnectionError("it closed the connection")
        kind, rest = line[:1], line[1:-2].decode(errors="replace")
        match kind:
            case b"+":
                return rest
            case b"-":
                raise CommandRefused(rest)
            case b":":
                return int(rest)
            case b"$":
                return self._bulk(int(rest))
            case b"*":
                return [self._read() for _ in range(int(rest))]
        raise ConnectionError("it does not speak the protocol of Redis")

    def _bulk(self, length: int) -> str | None:
        if length < 0:
            return None
        if length > MOST_BYTES:
            raise ConnectionError("its answer is too long")
        data = self._file.read(length + 2)
        return data[:-2].decode(errors="replace")
