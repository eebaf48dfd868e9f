"""Values from files: what a variable ``NAME`` may hold, the file that ``NAME_FILE`` names may hold.

The environment of a process is shown by ``docker inspect`` and inherited by its children; a file is
not. Secrets of Compose and Kubernetes are mounted as files. ``docs/settings.md`` has the names.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

from pydantic_settings import SettingsError

SUFFIX = "_FILE"


def read(name: str, variables: Mapping[str, str] = os.environ) -> str | None:
    """What the variable or its file holds, without space around it; None if neither is given.

    Raises ``SettingsError`` if both are given, or if the file cannot be read or is empty.
    """
    value, path = variables.get(name, "").strip(), variables.get(name + SUFFIX, "").strip()
    if not path:
        return value or None
    if value:
        raise SettingsError(f"{name} and {name}{SUFFIX} are both set: remove one of them")
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise SettingsError(
            f"{name}{SUFFIX} names {path}, which cannot be read: {reason}"
        ) from error
    if not text:
        raise SettingsError(f"{name}{SUFFIX} names {path}, which is empty")
    return text


def given(names: Iterable[str], variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What the files of these variables hold, by the name of the variable."""
    found = {name: read(name, variables) for name in names if variables.get(name + SUFFIX)}
    return {name: text for name, text in found.items() if text is not None}


def with_password(url: str, password: str) -> str:
    """The URL with this password, unless it has one of its own."""
    scheme, separator, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    user, _at, host = place.rpartition("@")
    if not password or not separator or ":" in user:
        return url
    return f"{scheme}{separator}{user}:{quote(password, safe='')}@{host}{slash}{path}"
