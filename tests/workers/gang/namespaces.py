"""Several hosts on one machine, each with its own address: network namespaces on a bridge.

The bridge's own address stands for the machine with the servers. Postgres and Valkey listen on the
loopback alone, so a forwarder passes connections on to them, as a load balancer would.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass

SUBNET = f"10.213.{os.getpid() % 250}"
"""Of this process: a run that was interrupted leaves its bridge behind, with another subnet."""

SERVERS = f"{SUBNET}.1"
BLOCK = 2**16


def are_possible() -> bool:
    """Whether this process may create namespaces: root, iproute2, and a kernel that has them."""
    if os.getuid() != 0 or shutil.which("ip") is None:
        return False
    probe = f"ns-probe-{os.getpid()}"
    made = _ip("netns", "add", probe, check=False) == 0
    if made:
        _ip("netns", "delete", probe)
    return made


@dataclass(frozen=True)
class Namespace:
    """One host's network."""

    name: str
    address: str
    link: str  # the veth device on the bridge

    def command(self, arguments: list[str]) -> list[str]:
        """The command as run in this host's network."""
        return ["ip", "netns", "exec", self.name, *arguments]

    def cut_off(self) -> None:
        """Pull the cable: packets are dropped, and no connection is closed."""
        _ip("link", "set", self.link, "down")

    def join(self) -> None:
        """Put the cable back."""
        _ip("link", "set", self.link, "up")


@contextlib.contextmanager
def network(count: int) -> Iterator[list[Namespace]]:
    """A bridge with ``count`` hosts on it."""
    tag = f"{os.getpid() % 100_000}"
    bridge = f"nsb{tag}"
    _ip("link", "add", bridge, "type", "bridge")
    made: list[Namespace] = []
    try:
        _ip("addr", "add", f"{SERVERS}/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        made += (_host(index, tag=tag, bridge=bridge) for index in range(count))
        yield made
    finally:
        for namespace in made:
            _ip("netns", "delete", namespace.name, check=False)
        _ip("link", "delete", bridge, check=False)


@contextlib.contextmanager
def forwarded(port: int) -> Iterator[None]:
    """Pass connections to this port of the bridge's address on to the same one of the loopback."""
    with socket.create_server((SERVERS, port), backlog=64) as server:
        threading.Thread(target=_accept, args=(server, port), daemon=True).start()
        yield


def _host(index: int, *, tag: str, bridge: str) -> Namespace:
    namespace = Namespace(
        name=f"ns-host-{tag}-{index}",
        address=f"{SUBNET}.{10 + index}",
        link=f"nsv{tag}{index}",
    )
    inside = ("-n", namespace.name)
    _ip("netns", "add", namespace.name)
    _ip("link", "add", namespace.link, "type", "veth", "peer", "eth0", "netns", namespace.name)
    _ip("link", "set", namespace.link, "master", bridge, "up")
    _ip(*inside, "link", "set", "lo", "up")
    _ip(*inside, "addr", "add", f"{namespace.address}/24", "dev", "eth0")
    _ip(*inside, "link", "set", "eth0", "up")
    return namespace


def _accept(server: socket.socket, port: int) -> None:
    while True:
        try:
            outer, _ = server.accept()
        except OSError:
            return
        inner = socket.create_connection(("127.0.0.1", port))
        for source, sink in ((outer, inner), (inner, outer)):
            threading.Thread(target=_pass_on, args=(source, sink), daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while block := source.recv(BLOCK):
            sink.sendall(block)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _ip(*arguments: str, check: bool = True) -> int:
    return subprocess.run(["ip", *arguments], check=check, capture_output=True).returncode
