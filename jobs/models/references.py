"""Model references: their parser, and the allow-list.

    news@3                   version 3 of the model `news` in the project's registry
    news@champion            the version that the alias points to
    news                     its newest version
    hf:org/name[@revision]   a model of the hub
    /models/mine             a folder on the worker, also written file:///models/mine
    s3://bucket/models/mine  a folder of an object store
    {job_1a2b.model}         the version that this job registers, once it has succeeded

The first three and the last are the project's own and always allowed; the others must be covered by
the installation's ``allowed_models``. No reference is ambiguous: names of the registry contain
neither ``/`` nor ``:`` nor ``{``, versions are digits only, and aliases begin with a letter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote

from jobs import names
from jobs.errors import ModelFailure

HUB = "hf:"

NAME, ALIAS = re.compile(names.MODEL), re.compile(names.ALIAS)
"""Names and aliases in the registry."""

OF_JOB = re.compile(rf"\{{(?P<job>{names.ID})\.model\}}")
"""The model that another job registers."""

_HUB = re.compile(r"hf:(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
REGISTERED = re.compile(
    rf"(?P<name>{NAME.pattern})"
    rf"(?:@(?:(?P<version>[1-9][0-9]{{0,8}})|(?P<alias>{ALIAS.pattern})))?"
)


@dataclass(frozen=True)
class Registered:
    """A version of the project's registry: the newest if it has neither version nor alias."""

    name: str
    version: int | None = None
    alias: str | None = None


@dataclass(frozen=True)
class RegisteredBy:
    """The version that a job of the project registers: it is pinned when that job has succeeded."""

    job: str


@dataclass(frozen=True)
class HubModel:
    name: str
    revision: str | None = None


@dataclass(frozen=True)
class Folder:
    """An absolute path on the machine that loads the model."""

    path: PurePosixPath


@dataclass(frozen=True)
class Location:
    """A folder of an object store: a bucket and the path segments below it."""

    scheme: str
    parts: tuple[str, ...]

    @property
    def uri(self) -> str:
        """As a URL without a trailing slash."""
        return f"{self.scheme}://{'/'.join(self.parts)}"


Reference = Registered | RegisteredBy | HubModel | Folder | Location


def parse(reference: str) -> Reference:
    """Raises ``ModelFailure`` for a text that is not a reference."""
    if reference.startswith(HUB):
        return _hub(reference)
    if reference.startswith("{"):
        return _of_job(reference)
    if "://" in reference:
        return _uri(reference)
    if reference.startswith("/"):
        return Folder(PurePosixPath(reference))
    return _registered(reference)


def check_allowed(reference: str, allowed: Sequence[str]) -> Reference:
    """The parsed reference. Raises ``ModelFailure`` for one that no worker would load.

    Only the text is checked. A folder is checked again on the worker, where links are followed; a
    name of the registry is looked up when the job is accepted.
    """
    parsed = parse(reference)
    if not _is_allowed(parsed, allowed):
        raise refused(reference, allowed=allowed)
    return parsed


def folders(allowed: Sequence[str]) -> list[PurePosixPath]:
    """The folders on an allow-list, each of which covers everything below it."""
    entries = (parse(entry) for entry in allowed if entry.startswith(("/", "file:///")))
    return [entry.path for entry in entries if isinstance(entry, Folder)]


def refused(reference: str, *, allowed: Sequence[str]) -> ModelFailure:
    """The error for a reference that the allow-list does not cover."""
    hint = "; `nightshift up --allow FOLDER` allows a folder" if reference.startswith("/") else ""
    return ModelFailure(
        f"the model {reference!r} is not on this installation's allow-list "
        f"(allowed_models: {', '.join(allowed) or 'nothing'}){hint}",
        code="model_refused",
    )


def private(reference: str) -> ModelFailure:
    """The error for a reference to a place of the installation itself."""
    return ModelFailure(
        f"the model {reference!r} lies among the files of this installation, which are no input of "
        "a job; a model of the registry is written name@version",
        code="model_refused",
    )


def _of_job(reference: str) -> RegisteredBy:
    match = OF_JOB.fullmatch(reference)
    if match is None:
        raise ModelFailure(
            f"the model of another job is written {{JOB.model}}, not {reference!r}",
            code="model_missing",
        )
    return RegisteredBy(match["job"])


def _hub(reference: str) -> HubModel:
    match = _HUB.fullmatch(reference)
    if match is None:
        raise ModelFailure(
            f"a hub model is written hf:org/name or hf:org/name@revision, not {reference!r}",
            code="model_missing",
        )
    return HubModel(match["name"], match["revision"])


def _uri(reference: str) -> Folder | Location:
    scheme, _, path = reference.partition("://")
    if scheme == "file" and path.startswith("/"):
        return Folder(PurePosixPath(unquote(path)))
    parts = tuple(part for part in path.split("/") if part)
    if scheme == "s3" and parts and not {".", ".."} & set(parts):
        return Location(scheme, parts)
    raise ModelFailure(
        "a model's URI is file:///folder or s3://bucket/folder, without '.' and '..', "
        f"not {reference!r}",
        code="model_refused",
    )


def _registered(reference: str) -> Registered:
    match = REGISTERED.fullmatch(reference)
    if match is None:
        raise ModelFailure(
            "a model is name@version, name@alias or name in the registry, hf:org/name, "
            f"an absolute folder, or a URI (file:///, s3://), not {reference!r}",
            code="model_refused",
        )
    version = match["version"]
    return Registered(match["name"], int(version) if version else None, match["alias"])


def _is_allowed(reference: Reference, allowed: Sequence[str]) -> bool:
    match reference:
        case Registered() | RegisteredBy():
            return True
        case HubModel(name=name):
            return _covers_hub(name, allowed)
        case Folder(path=path):
            covered = any(path.is_relative_to(prefix) for prefix in folders(allowed))
            return covered and ".." not in path.parts
        case Location(scheme=scheme, parts=parts):
            entries = [entry for entry in allowed if entry.startswith(f"{scheme}://")]
            prefixes = (entry.partition("://")[2].strip("/") for entry in entries)
            return any(PurePosixPath(*parts).is_relative_to(prefix) for prefix in prefixes)


def _covers_hub(name: str, allowed: Sequence[str]) -> bool:
    """``hf:`` allows the whole hub, ``hf:org/`` one organisation, ``hf:org/name`` one model."""
    prefixes = (entry.removeprefix(HUB) for entry in allowed if entry.startswith(HUB))
    return any(PurePosixPath(name).is_relative_to(prefix) for prefix in prefixes)
