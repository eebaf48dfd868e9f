"""What an ordinary account of the machine could read of a stack: its files and its processes."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

from api.stack.record import StackInfo

STRANGER = "games"
"""An account of every system, which owns nothing of ours."""

CANARIES = {
    "AWS_SECRET_ACCESS_KEY": "secret-of-s3",
    "HF_TOKEN": "secret-of-the-hub",
    "GITHUB_TOKEN": "secret-of-another-program",
    "NIGHTSHIFT_API_KEY": "secret-of-a-client",
}
"""Secrets in the environment of the one who starts the stack."""

NEEDED: dict[str, set[str]] = {
    "postgres": set(),
    "valkey": set(),
    "control": {"postgres", "valkey"},
    "planner": {"postgres", "valkey", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"},
    "pool": {"postgres", "valkey", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"},
    "host": {"postgres", "valkey", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"},
    "api": {"postgres", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"},
    "flower": {"postgres", "valkey", "flower"},
}
"""Secrets that each service may have in its environment."""

TRY = 'while IFS= read -r path; do [ -r "$path" ] && echo "$path"; done; true'


def readable_by_another_account(*folders: Path) -> list[str]:
    """Files and folders below these that another account can read; the kernel is asked."""
    paths = [path for folder in folders for path in _below(folder)]
    assert len(paths) > 10
    if os.getuid() != 0:  # only root can become the stranger
        return [path for path in paths if Path(path).lstat().st_mode & 0o007]
    account = pwd.getpwnam(STRANGER)
    asked = subprocess.run(
        ["/bin/sh", "-c", TRY],
        input="\n".join(paths),
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    return asked.stdout.splitlines()


def _below(folder: Path) -> Iterator[str]:
    """The folder and all in it; what vanishes meanwhile is left out."""
    yield str(folder)
    for parent, folders, files in os.walk(folder):
        yield from (f"{parent}/{name}" for name in (*folders, *files))


def secrets(stack: StackInfo) -> dict[str, str]:
    """Every secret of the stack, and those of the one who started it."""
    urls = {"postgres": stack.database_url, "valkey": stack.redis_url}
    passwords = {name: httpx.URL(url).password for name, url in urls.items()}
    return {**CANARIES, **passwords, "flower": stack.flower_password, "key": stack.key}


def processes(stack: StackInfo) -> Iterator[tuple[str, psutil.Process]]:
    """Every process of the stack with the name of its service."""
    for service in stack.services:
        leader = psutil.Process(service.pid)
        yield from ((service.name, each) for each in (leader, *leader.children(recursive=True)))
