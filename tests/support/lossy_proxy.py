"""A TCP proxy that can lose answers: the server has done its work, and the client never learns."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class LossyProxy:
    """Passes connections on to a port of this machine; loses the answers that it is told to."""

    def __init__(self, target: int) -> None:
        self.answers_to_lose = 0
        self.lost = 0
        self.url = ""
        self._target = target
        self._lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[LossyProxy]:
        """At ``url``."""
        serve = self._serve

        class Connection(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                serve(self.request)

        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection) as server:
            server.daemon_threads = True
            self.url = f"http://127.0.0.1:{server.server_address[1]}"
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield self
            server.shutdown()

    def _serve(self, client: socket.socket) -> None:
        """Until either side hangs up, or an answer begins that must be lost."""
        with socket.create_connection(("127.0.0.1", self._target)) as upstream:
            threading.Thread(target=_pump, args=(client, upstream), daemon=True).start()
            with contextlib.suppress(OSError):
                while True:
                    answer = upstream.recv(2**16)
                    if not answer or self._loses():
                        break
                    client.sendall(answer)
            _hang_up(client)
            _hang_up(upstream)

    def _loses(self) -> bool:
        with self._lock:
            if not self.answers_to_lose:
                return False
            self.answers_to_lose -= 1
            self.lost += 1
            return True


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(2**16):
            target.sendall(data)
    _hang_up(target)


def _hang_up(side: socket.socket) -> None:
    with contextlib.suppress(OSError):
        side.shutdown(socket.SHUT_RDWR)
