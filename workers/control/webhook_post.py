"""One POST to a receiver: only to an address that was checked, and over at a time that is fixed.

The name of the host is looked up once, and the connection goes to one of the addresses that were
checked, with the name in its Host header and its certificate: an answer of the DNS that changes
changes nothing. A redirect is not followed. No proxy of the environment is used. The body of the
answer is not read.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx

from jobs.webhooks import addresses, answers
from jobs.webhooks.answers import Failure

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Sequence[str]]


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host. Raises ``OSError``."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def send(
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes,
    deadline: float,
    allowed: Sequence[Network],
    resolve: Resolve = resolve,
) -> tuple[int | None, Failure | None]:
    """The status of the answer, and why the try failed; ``deadline``: of the monotonic clock."""
    sent: dict[bytes | str, bytes | str] = {"host": urlsplit(url).netloc}
    sent.update(headers)
    backend = _CheckedBackend(deadline, allowed=allowed, resolve=resolve)
    began = time.monotonic()
    try:
        with (
            httpcore.ConnectionPool(ssl_context=_ssl_context(), network_backend=backend) as pool,
            pool.stream("POST", url, headers=sent, content=body) as answer,
        ):
            return answer.status, answers.judge(answer.status)
    except httpcore.TimeoutException:
        return None, Failure(f"it did not answer within {max(1, round(deadline - began))} s")
    except httpcore.ProtocolError:
        return None, Failure("its answer is not HTTP, or the connection ended before it")
    except (httpcore.NetworkError, UnicodeError) as error:
        return None, Failure(f"it cannot be reached: {' '.join(str(error).split())[:200]}")


@functools.cache
def _ssl_context() -> ssl.SSLContext:
    """The roots of certifi, or those of ``SSL_CERT_FILE``."""
    return httpx.create_ssl_context()


class _CheckedBackend(httpcore.SyncBackend):
    """Connects to addresses that were checked, within a time for all that is done."""

    def __init__(self, deadline: float, *, allowed: Sequence[Network], resolve: Resolve) -> None:
        self._deadline = deadline
        self._allowed = allowed
        self._resolve = resolve

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the deadline decides
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """A connection to the first of the host's addresses that takes one."""
        failed: Exception = httpcore.ConnectError("its name has no address")
        for address in self._checked(host, port):
            try:
                stream = super().connect_tcp(
                    address, port, _left(self._deadline), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
            else:
                return _TimedStream(stream, self._deadline)
        raise failed

    def _checked(self, host: str, port: int) -> Sequence[str]:
        try:
            found = self._resolve(host, port)
        except OSError as error:
            raise httpcore.ConnectError(f"its name cannot be looked up ({error})") from error
        if not addresses.are_allowed(found, allowed=self._allowed):
            raise httpcore.ConnectError("it has an address that is not public")
        return found


class _TimedStream(httpcore.NetworkStream):
    """A connection of which every step ends at the same time, however slowly bytes come."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self._stream.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._stream.write(buffer, _left(self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        secured = self._stream.start_tls(ssl_context, server_hostname, _left(self._deadline))
        return _TimedStream(secured, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the time is over")
    return left
