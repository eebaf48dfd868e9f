"""A receiver of webhooks on an address of this machine, which answers as a test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ALLOWED = "127.0.0.2"
"""An address that tests allow; 127.0.0.1 stays forbidden."""

FORBIDDEN = "127.0.0.1"


@dataclass(frozen=True)
class Received:
    """One request, and the status that it was answered with; 0: with none."""

    path: str
    headers: dict[str, str]
    body: bytes
    status: int

    @property
    def event(self) -> Any:
        return json.loads(self.body)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


class Receiver:
    """Answers the first requests as it is told, and later ones with 204."""

    def __init__(self, host: str, answers: Sequence[int | Callable[[], int]]) -> None:
        self.received: list[Received] = []
        self.location = ""
        self._answers = list(answers)
        self._lock = threading.Lock()
        self.server = ThreadingHTTPServer((host, 0), _handler(self))
        self.server.daemon_threads = True
        self.url = f"http://{host}:{self.server.server_port}/hook"

    def ids(self, *, taken: bool = True) -> list[str]:
        """Events in the order in which they came; only those that were taken, or all."""
        return [each.id for each in self.received if each.status == 204 or not taken]

    def answer(self) -> int:
        with self._lock:
            chosen = self._answers.pop(0) if self._answers else 204
        return chosen if isinstance(chosen, int) else chosen()

    def record(self, received: Received) -> None:
        with self._lock:
            self.received.append(received)


@contextmanager
def receiving(*answers: int | Callable[[], int], host: str = ALLOWED) -> Iterator[Receiver]:
    """A receiver that runs while the block does."""
    receiver = Receiver(host, answers)
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()
    thread.join()


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status = receiver.answer()
            receiver.record(Received(self.path, headers, body, status))
            if not status:
                return
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("location", receiver.location)
            self.send_header("content-length", "0")
            self.end_headers()

        do_GET = do_HEAD = do_POST  # noqa: N815 - names of the standard library

        def log_message(self, *_: object) -> None:
            pass

    return Handler
