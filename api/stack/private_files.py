"""Files of the stack that only their owner reads; secrets among them are made once."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def get_or_create_secret(path: Path, *, prefix: str = "") -> str:
    """The secret in the file; made and written there if there is none."""
    if not path.exists():
        write(path, prefix + secrets.token_urlsafe(32))
    return path.read_text().strip()


def write(path: Path, text: str) -> None:
    """Replace a file by one with mode 0600; a reader sees the old text or the new."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
