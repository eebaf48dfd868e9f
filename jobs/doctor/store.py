"""Checks of the object store: whether it does all that Nightshift asks of one.

The objects of a check lie under a prefix of its own, which it removes.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from jobs import objects
from jobs.doctor.check_results import CheckResult, error, ok
from jobs.errors import BadRequest, NightshiftError
from jobs.objects import ObjectStore
from jobs.settings import Settings

PREFIX = "doctor"
DATA = b"0123456789"
_REFUSED = "let the account or the keys of the processes read, write, list and delete there"
_AWAY = "see NIGHTSHIFT_OBJECT_STORE_URL, the AWS_* variables, and whether the store runs"
_SEMANTICS = "use a store with strong consistency and conditional writes, such as S3 or SeaweedFS"


def check(settings: Settings) -> list[CheckResult]:
    """Write, read, read a part, write if absent, list and delete."""
    url = settings.object_store_url
    try:
        _look_at_folder(url)
        store = objects.connect(url)
        return [_try(store, f"{PREFIX}/{secrets.token_hex(8)}")]
    except BadRequest as failure:
        return [error("objects", failure.message, "correct NIGHTSHIFT_OBJECT_STORE_URL")]
    except (NightshiftError, OSError) as failure:
        advice = _REFUSED if isinstance(failure, PermissionError) else _AWAY
        return [error("objects", f"it cannot be used: {failure}", advice)]
    except Exception as failure:  # noqa: BLE001 - whatever a backend raises for its configuration
        return [error("objects", f"it cannot be used: {failure}", _AWAY)]


def _look_at_folder(url: str) -> None:
    """A folder that is not there is made by the processes, not by a check."""
    parts = urlsplit(url)
    if parts.scheme == "file" and not Path(unquote(parts.path)).is_dir():
        raise FileNotFoundError(f"there is no folder {unquote(parts.path)}")


def _try(store: ObjectStore, prefix: str) -> CheckResult:
    try:
        broken = [words for words in _broken(store, prefix) if words]
    finally:
        with contextlib.suppress(NightshiftError, OSError):
            store.delete_folder(prefix)
    if broken:
        return error("objects", "; ".join(broken), _SEMANTICS)
    return ok("objects", "it writes, reads, lists, deletes, and writes only what is not there yet")


def _broken(store: ObjectStore, prefix: str) -> Iterator[str | None]:
    """What it does otherwise than it must, in words; ``None``: it does."""
    first, second = f"{prefix}/first", f"{prefix}/second"
    store.put(first, DATA)
    yield None if store.get(first) == DATA else "what was written is not what is read"
    part = b"".join(store.stream(first, start=3, end=6))
    yield None if part == DATA[3:6] else "a range of bytes is not those bytes"
    store.create(second, DATA)
    again = store.create(second, b"other") or store.get(second) != DATA
    yield "it writes over an object that may only be made once" if again else None
    listed = set(store.keys(prefix))
    yield None if listed == {first, second} else "a listing lacks what was just written"
    store.delete_all([first, second])
    yield "what was deleted is still there" if store.exists(first) else None
