"""Who a server runs as, and which files that account can reach.

Postgres refuses to run as root; under root it runs as ``nobody``.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Account:
    """A system account by number."""

    uid: int
    gid: int


def unprivileged() -> Account | None:
    """``nobody`` when we are root; ``None`` when we are an ordinary user already."""
    if os.getuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    return Account(uid=entry.pw_uid, gid=entry.pw_gid)


def can_reach(path: Path, *, account: Account | None) -> bool:
    """Whether the account may read and pass ``path``: the kernel is asked, as that account."""
    if account is None:
        return os.access(path, os.R_OK | os.X_OK)
    question = ["/bin/sh", "-c", '[ -r "$1" ] && [ -x "$1" ]', "sh", str(path)]
    answer = subprocess.run(
        question, check=False, cwd="/", user=account.uid, group=account.gid, extra_groups=[]
    )
    return answer.returncode == 0
