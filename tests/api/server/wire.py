"""Requests as bytes, for what no HTTP client would send."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.api.server.installation import Installation


@dataclass(frozen=True)
class Answer:
    """What came back; status 0: the connection was closed without an answer."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)["error"]
        return found


@contextmanager
def connected(installation: Installation, *, seconds: float = 20) -> Iterator[socket.socket]:
    """A connection of our own."""
    with socket.create_connection(("127.0.0.1", installation.port), timeout=seconds) as wire:
        yield wire


def read(wire: socket.socket, *, method: str = "GET") -> Answer:
    """The next answer on a connection."""
    response = http.client.HTTPResponse(wire, method=method)
    try:
        response.begin()
        body = response.read()
    except (http.client.BadStatusLine, ConnectionError):
        return Answer(0, b"", {})
    found = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, body, found)


def ask(installation: Installation, request: bytes) -> Answer:
    """Send these bytes on a connection of their own."""
    with connected(installation) as wire:
        send(wire, request)
        return read(wire)


def send(wire: socket.socket, data: bytes) -> None:
    """Send as much as the server takes: it may end the connection before the last byte."""
    try:
        wire.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return


def head(first: str, *fields: str, key: str = "") -> bytes:
    """A well-formed head of this request line and these fields, with a Host and perhaps a key."""
    own = ["Host: here", *([f"Authorization: Bearer {key}"] if key else [])]
    return "\r\n".join([f"{first} HTTP/1.1", *own, *fields, "", ""]).encode()


def with_body(first: str, body: bytes, *, key: str, kind: str = "application/json") -> bytes:
    """A whole request with a body."""
    fields = f"Content-Type: {kind}", f"Content-Length: {len(body)}"
    return head(first, *fields, key=key) + body


def begun_upload(key: str, *, length: int = 10**6) -> bytes:
    """An upload whose file never ends."""
    part = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nbegun'
    fields = "Content-Type: multipart/form-data; boundary=B", f"Content-Length: {length}"
    return head("POST /v1/files", *fields, key=key) + part


@contextmanager
def fed(wire: socket.socket) -> Iterator[None]:
    """Send a little of a body all the time, so that it does not stall."""
    ended = threading.Event()

    def feed() -> None:
        while not ended.wait(0.2):
            send(wire, b"x" * 200)

    feeder = threading.Thread(target=feed)
    feeder.start()
    yield
    ended.set()
    feeder.join()
