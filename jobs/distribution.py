"""The name under which this project is installed, and its version."""

from __future__ import annotations

import importlib.metadata

NAME = "nightshift-queue"
"""As package indexes know it: another project has the name ``nightshift`` there."""


def version() -> str | None:
    """The installed version; ``None``: it is a source tree that is not installed."""
    try:
        return importlib.metadata.version(NAME)
    except importlib.metadata.PackageNotFoundError:
        return None


def with_extra(extra: str) -> str:
    """The command that installs an extra of this project."""
    return f"pip install '{NAME}[{extra}]'"
