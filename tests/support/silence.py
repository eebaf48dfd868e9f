"""Stand-ins for a Redis that is there and does not serve: one is silent, one loads its data."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"


@contextlib.contextmanager
def silent_server(port: int, *, answer: bytes = b"") -> Iterator[None]:
    """Accept connections on this port and give this ``answer``, or none, to all that arrives."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(200)
        connections: list[socket.socket] = []
        thread = threading.Thread(target=_serve, args=(listener, connections, answer), daemon=True)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in connections:
            connection.close()


def _serve(listener: socket.socket, connections: list[socket.socket], answer: bytes) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connections.append(connection)
        if answer:
            threading.Thread(target=_answer, args=(connection, answer), daemon=True).start()


def _answer(connection: socket.socket, answer: bytes) -> None:
    with contextlib.suppress(OSError):
        while connection.recv(65_536):
            connection.sendall(answer)
