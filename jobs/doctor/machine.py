"""Checks of this machine: the settings, and the folders of an installation."""

from __future__ import annotations

import difflib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from jobs import os_errors, secret_files
from jobs.doctor import judgement
from jobs.doctor.check_results import CheckResult, ok, warning
from jobs.doctor.facts import FolderFacts
from jobs.settings import Settings

PREFIX = "NIGHTSHIFT_"
OTHERS = frozenset(
    {
        *("NIGHTSHIFT_API_KEY", "NIGHTSHIFT_API_URL", "NIGHTSHIFT_PROFILE", "NIGHTSHIFT_TRACE"),
        *("NIGHTSHIFT_HOME", "NIGHTSHIFT_ALLOW", "NIGHTSHIFT_FLOWER_BASIC_AUTH"),
        *("NIGHTSHIFT_STACK", "NIGHTSHIFT_QUEUE", "NIGHTSHIFT_WORKER", "NIGHTSHIFT_WORKER_TOKEN"),
    }
)
"""Variables that are no settings, and read all the same."""

_READ_FROM_FILES = frozenset({"NIGHTSHIFT_API_KEY", "NIGHTSHIFT_FLOWER_BASIC_AUTH"})

CLOSE = 0.85
"""How like a setting's name a variable's must be to be taken for a slip of the pen."""


def variables(given: Mapping[str, str]) -> list[CheckResult]:
    """Variables whose names are nearly those of settings: they are read by no process."""
    names = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    known = names | {name + secret_files.SUFFIX for name in names | _READ_FROM_FILES}
    slips = [
        (name, close[0])
        for name in sorted(given)
        if name.startswith(PREFIX) and name not in known | OTHERS
        if (close := difflib.get_close_matches(name, known, n=1, cutoff=CLOSE))
    ]
    if not slips:
        return [ok("settings", "every one can be read")]
    return [
        warning("settings", f"{name} is no setting", f"write {meant}, or remove it")
        for name, meant in slips
    ]


def folders(settings: Settings, *, home: Path | None) -> list[CheckResult]:
    """Those in which processes of this machine write; ``home``: the state folder of a stack."""
    return [
        finding
        for purpose, path, private in _folders(settings, home)
        for finding in judgement.folder(_look(purpose, path, private=private))
    ]


def _folders(settings: Settings, home: Path | None) -> Iterator[tuple[str, Path, bool]]:
    """What for, where, and whether it must be closed to other accounts."""
    if home is not None:
        yield "state folder", home, True
    store = urlsplit(settings.object_store_url)
    if store.scheme == "file":
        yield "folder of objects", Path(unquote(store.path)), False
    yield "cache of models", settings.artefact_folder, False
    if settings.calibration_folder:
        yield "calibrations", Path(settings.calibration_folder), False
    yield "work of training", Path(settings.host_folder or tempfile.gettempdir()), False


def _look(purpose: str, path: Path, *, private: bool) -> FolderFacts:
    """The folder, or the nearest one above that is there: processes make what is missing."""
    place = next(each for each in (path, *path.parents) if each.exists())
    disk = shutil.disk_usage(place)
    return FolderFacts(
        purpose=purpose,
        path=path,
        problem=_problem(place),
        mode=path.stat().st_mode & 0o777 if path.exists() else None,
        free=disk.free,
        total=disk.total,
        private=private,
    )


def _problem(place: Path) -> str | None:
    """Why no file can be made there. It is tried: a mode does not show that a disk is read-only."""
    try:
        handle, name = tempfile.mkstemp(prefix=".nightshift-doctor-", dir=place)
    except OSError as failure:
        return os_errors.explain(failure)
    os.close(handle)
    Path(name).unlink()
    return None
