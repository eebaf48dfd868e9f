"""Links: each process reaches each server through a proxy of its own, which can lose all packets.

A link that is cut is a black hole and no closed door. The kernel drops every packet that arrives at
its sockets (a socket filter that accepts nothing), so that what the process sends is never
acknowledged and its new connections are never answered; the proxy passes nothing on meanwhile. The
process learns of it as it would from a network: by its own timeouts.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import socket
import struct
import threading
from collections.abc import Iterator

BLOCK = 2**16
HOST = "127.0.0.1"

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27  # the module ``socket`` does not name them
_DROP_ALL = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF_RET 0
_PROGRAM = struct.pack("HL", 1, ctypes.addressof(_DROP_ALL))

HOLD_SECONDS = 300.0


class Trap:
    """Holds the request that matches, so that a fault can be made while it is under way."""

    def __init__(self, pattern: bytes, *, count: int) -> None:
        self._pattern = re.compile(pattern)
        self._left = count
        self._lock = threading.Lock()
        self._released = threading.Event()
        self.sprung = threading.Event()

    def release(self) -> None:
        """Let the request pass."""
        self._released.set()

    def hold(self, block: bytes) -> None:
        """Return at once, unless this is the request: then after ``release``."""
        if self._released.is_set() or not self._pattern.match(block):
            return
        with self._lock:
            self._left -= 1
            if self._left:
                return
        self.sprung.set()
        self._released.wait(HOLD_SECONDS)


class Link:
    """The way of one process to one server: a port of its own."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._lock = threading.Lock()
        self._open = threading.Event()
        self._open.set()
        self._ends: set[socket.socket] = set()  # towards the process
        self._trap: Trap | None = None
        self._listener = socket.create_server((HOST, 0), backlog=200)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        """Where the process connects to."""
        return int(self._listener.getsockname()[1])

    @property
    def is_used(self) -> bool:
        """Whether the process has a connection."""
        return bool(self._ends)

    def cut(self) -> None:
        """Lose every packet from now on."""
        with self._lock:
            self._open.clear()
            for end in (self._listener, *self._ends):
                end.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, _PROGRAM)

    def join(self) -> None:
        """Pass packets on again; one that is whole does so already."""
        with self._lock:
            if not self._open.is_set():
                for end in (self._listener, *self._ends):
                    end.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
                self._open.set()

    @contextlib.contextmanager
    def trap(self, pattern: bytes, *, count: int) -> Iterator[Trap]:
        """Hold the ``count``-th request of the process that begins like the pattern."""
        self._trap = trap = Trap(pattern, count=count)
        try:
            yield trap
        finally:
            trap.release()
            self._trap = None

    def close(self) -> None:
        """Take no more connections; those that are open end with either side."""
        self.join()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                process, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(process,), daemon=True).start()

    def _serve(self, process: socket.socket) -> None:
        with process, contextlib.suppress(OSError):
            server = socket.create_connection((HOST, self._server_port), timeout=5)
            server.settimeout(None)
            with server, self._known(process):
                for end in (process, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                back = threading.Thread(target=self._pass_on, args=(server, process), daemon=True)
                back.start()
                self._pass_on(process, server, watched=True)
                back.join()

    @contextlib.contextmanager
    def _known(self, process: socket.socket) -> Iterator[None]:
        with self._lock:
            if not self._open.is_set():
                process.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, _PROGRAM)
            self._ends.add(process)
        try:
            yield
        finally:
            with self._lock:
                self._ends.discard(process)

    def _pass_on(
        self, source: socket.socket, sink: socket.socket, *, watched: bool = False
    ) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(BLOCK):
                if watched and (trap := self._trap):
                    trap.hold(block)
                self._open.wait()
                sink.sendall(block)
        self._open.wait()  # an end cannot be heard of through a cut either
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
