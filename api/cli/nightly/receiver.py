"""A receiver of webhooks on this machine: it checks signatures and keeps what was told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from jobs.webhooks import signatures

ADDRESS = "127.0.0.1"


class Receiver:
    """Takes events that are signed with ``secret``, each once by its id."""

    def __init__(self) -> None:
        self.secret = signatures.new_secret()  # until the endpoint has its own
        self.server = ThreadingHTTPServer((ADDRESS, 0), _handler(self))
        self.url = f"http://{ADDRESS}:{self.server.server_port}/nightshift"
        self._events: dict[str, dict[str, Any]] = {}

    @property
    def events(self) -> list[dict[str, Any]]:
        """Events in the order in which they came first."""
        return list(self._events.values())

    def take(self, headers: dict[str, str], body: bytes) -> HTTPStatus:
        """The status of the answer."""
        event_id = headers["webhook-id"]
        at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        ours = signatures.headers([self.secret], event_id=event_id, at=at, body=body)
        if ours["webhook-signature"] not in headers["webhook-signature"].split():
            return HTTPStatus.UNAUTHORIZED
        self._events.setdefault(event_id, json.loads(body))
        return HTTPStatus.NO_CONTENT


@contextmanager
def listening() -> Iterator[Receiver]:
    """A receiver that answers while the block runs."""
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()
        thread.join()


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.send_response(receiver.take(headers, body))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """No line for each request."""

    return Handler
