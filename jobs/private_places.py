"""Places of the installation itself: never an input of a job, whatever an allow-list covers (P9).

There lie the files, results, models and secrets of every project. A folder is known by its identity
on the file system, so neither a symbolic link, nor a bind mount, nor another spelling of its path
leads past this rule.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from jobs import temporary
from jobs.settings import Settings

_FILE = "file://"
_DEPTH = ("*", "*/*")
"""How deep a model's folder has files."""


def of(settings: Settings) -> tuple[str, ...]:
    """The installation's object store and folders, as URIs."""
    folders = [
        *settings.private_folders,
        str(settings.artefact_folder),
        settings.calibration_folder,
        settings.host_folder,
        str(temporary.path()),
    ]
    return (
        settings.object_store_url,
        *(_FILE + str(Path(each).absolute()) for each in folders if each),
    )


def hold(private: Sequence[str], real: Path) -> bool:
    """Whether this file or folder, whose links are resolved, lies in one of the places."""
    folders = list(_folders(private))
    if any(real.is_relative_to(folder.resolve()) for folder in folders):
        return True
    known = {identity for folder in folders if (identity := _identity(folder))}
    return any(_identity(place) in known for place in (real, *real.parents))


def linked(private: Sequence[str], folder: Path) -> Path | None:
    """The first link in a model's folder that leads into one of the places."""
    entries = itertools.chain.from_iterable(folder.glob(pattern) for pattern in _DEPTH)
    links = (entry for entry in entries if entry.is_symlink())
    return next((link for link in links if hold(private, link.resolve())), None)


def hold_object(private: Sequence[str], scheme: str, parts: tuple[str, ...]) -> bool:
    """Whether the object, bucket first, lies in the installation's own object store."""
    stores = (entry.partition("://") for entry in private if not entry.startswith(_FILE))
    for own_scheme, _, path in stores:
        own = tuple(part for part in path.split("/") if part)
        if own_scheme == scheme and parts[: len(own)] == own:
            return True
    return False


def _folders(private: Sequence[str]) -> Iterator[Path]:
    for entry in private:
        if entry.startswith(_FILE):
            path = entry.removeprefix(_FILE)
            yield Path(path)
            if "%" in path:
                yield Path(unquote(path))


def _identity(place: Path) -> tuple[int, int] | None:
    try:
        state = place.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino
