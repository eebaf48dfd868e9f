"""The folder for temporary files of this account's processes, closed to every other account.

The system's folder for temporary files is shared: any account could have made a folder of a name
that can be guessed, or a link of that name. So the folder's owner is checked before it is used.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from jobs.errors import StorageAway


def path() -> Path:
    """Where the folder is, whether it exists or not."""
    return Path(tempfile.gettempdir()) / f"nightshift-{os.getuid()}"


def folder() -> Path:
    """The folder, mode 0700. Raises ``StorageAway`` for one that belongs to another account."""
    found = path()
    found.mkdir(mode=0o700, exist_ok=True)
    state = found.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid():
        raise StorageAway(f"{found} must be a folder of this account, and is not; remove it")
    if stat.S_IMODE(state.st_mode) != 0o700:  # noqa: PLR2004 - a mode is written so
        found.chmod(0o700)
    return found


def worker_file() -> Path:
    """Where the last worker that was started here has its name, for a container's health check."""
    return folder() / "worker"
