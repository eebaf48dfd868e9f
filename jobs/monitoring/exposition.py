"""A listener of its own answers ``/metrics``: in every process, apart from the API's port.

It listens on loopback unless a setting says otherwise, and asks for a token if one is set. A
process that cannot listen warns and does its work without.
"""

from __future__ import annotations

import hmac
import os
import shutil
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app

from jobs import temporary
from jobs.monitoring import meters
from jobs.monitoring.catalogue import Source
from jobs.settings import Settings

log = structlog.get_logger()

METRICS = "/metrics"
LEDGER = "/metrics/ledger"
POLL_SECONDS = 0.25
"""How long a process that ends waits for its listener at most."""

STALL_SECONDS = 10.0
"""How long a client may take to send its request."""

_Page = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@contextmanager
def exposed(
    settings: Settings,
    source: Source,
    *,
    slots: int = 0,
    more: Mapping[str, CollectorRegistry] | None = None,
) -> Iterator[None]:
    """Count, and answer, while the block runs; neither if the port is 0.

    ``slots``: how many processes this one starts that count as well; ``more``: further pages.
    """
    meters.end()
    with ExitStack() as stack:
        if settings.metrics_port:
            try:
                _answer(settings, source, slots=slots, more=more or {}, stack=stack)
            except OSError as error:
                log.warning("this process has no metrics", error=str(error))
                stack.close()
        yield


def _answer(
    settings: Settings,
    source: Source,
    *,
    slots: int,
    more: Mapping[str, CollectorRegistry],
    stack: ExitStack,
) -> None:
    """Begin; what ends it again is left to the stack. Raises ``OSError`` if it cannot."""
    folder = _folder() if slots else None
    if folder is not None:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
    stack.callback(meters.end)
    registry = _begin(source, folder=folder, slots=slots)
    server = _server(settings, {METRICS: registry, **more})
    stack.callback(server.server_close)
    threading.Thread(
        target=server.serve_forever, args=(POLL_SECONDS,), name="metrics", daemon=True
    ).start()
    stack.callback(server.shutdown)


def _begin(source: Source, *, folder: Path | None, slots: int) -> CollectorRegistry:
    if folder is None:
        registry = meters.begin(source)
    else:
        registry = meters.begin_with_children(source, folder, slots=slots)
    ProcessCollector(registry=registry)
    return registry


def _folder() -> Path:
    """A new folder of this process; those of workers that were killed are removed."""
    above = temporary.folder() / "metrics"
    above.mkdir(mode=0o700, exist_ok=True)
    for left in above.iterdir():
        if left.name.isdigit() and not _is_alive(int(left.name)):
            shutil.rmtree(left, ignore_errors=True)
    folder = above / str(os.getpid())
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    return folder


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _server(settings: Settings, pages: Mapping[str, CollectorRegistry]) -> WSGIServer:
    made = {path: make_wsgi_app(registry) for path, registry in pages.items()}
    return make_server(
        settings.metrics_host,
        settings.metrics_port,
        _application(made, token=settings.metrics_token),
        server_class=_ServerOfIPv6 if ":" in settings.metrics_host else _Server,
        handler_class=_Handler,
    )


def _application(pages: Mapping[str, _Page], *, token: str) -> _Page:
    expected = f"Bearer {token}".encode()

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        given = environ.get("HTTP_AUTHORIZATION", "").encode("latin-1")
        if token and not hmac.compare_digest(given, expected):
            return _refuse(start, HTTPStatus.UNAUTHORIZED)
        page = pages.get(environ["PATH_INFO"])
        return page(environ, start) if page else _refuse(start, HTTPStatus.NOT_FOUND)

    return answer


def _refuse(start: Callable[..., Any], status: HTTPStatus) -> Iterable[bytes]:
    start(f"{status.value} {status.phrase}", [("content-type", "text/plain")])
    return [f"{status.phrase}\n".encode()]


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Without the look at the DNS that the standard library takes for the server's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none of our business."""


class _ServerOfIPv6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = STALL_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the parent's name
        """A scrape is no line of the log."""
