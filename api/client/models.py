"""The part of the Python client that is about the model registry: ``client.models``."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from api.client.transport import PAGE, Answer, Progress
from jobs.models import bundles


class Models:
    """The project's models. References are `name@version`, `name@alias`, or `name`."""

    def __init__(self, *, ask: Callable[..., Answer], download: Callable[..., None]) -> None:
        self._ask = ask
        self._fetch = download

    def list(self) -> Iterator[Answer]:
        """Every version that can be used, by name, newest first."""
        yield from self._ask("GET", "/v1/models")["data"]

    def get(self, reference: str) -> Answer:
        """One version in full."""
        return self._ask("GET", f"/v1/models/{_segment(reference)}")

    def versions(self, name: str) -> Iterator[Answer]:
        """One name's versions, newest first, deleted ones too."""
        return self._pages(f"/v1/models/{_segment(name)}/versions")

    def promotions(self, name: str) -> Iterator[Answer]:
        """Decisions about a name's aliases, newest first."""
        return self._pages(f"/v1/models/{_segment(name)}/promotions")

    def promotion(self, name: str, decision: int) -> Answer:
        """One decision, with the reports on both versions."""
        return self._ask("GET", f"/v1/models/{_segment(name)}/promotions/{decision}")

    def history(self, name: str, alias: str) -> Iterator[Answer]:
        """What an alias pointed to, newest first, with since when and until when."""
        return self._pages(f"{_alias(name, alias)}/history")

    def rollback(self, name: str, alias: str, *, from_version: int | None = None) -> Answer:
        """Let an alias point to what it pointed to before.

        ``from_version``: refused if the alias points to another one; a repeated call with the same
        one is one rollback.
        """
        body = None if from_version is None else {"from_version": from_version}
        return self._ask("POST", f"{_alias(name, alias)}/rollback", json=body)

    def alias(self, name: str, alias: str) -> Answer:
        """Where an alias points."""
        return self._ask("GET", _alias(name, alias))

    def set_alias(self, name: str, alias: str, *, version: int) -> Answer:
        """Let an alias point to a version, wherever it pointed before."""
        return self._ask("PUT", _alias(name, alias), json={"version": version})

    def remove_alias(self, name: str, alias: str) -> Answer:
        """Forget an alias; the version it pointed to stays."""
        return self._ask("DELETE", _alias(name, alias))

    def delete(self, name: str, version: int) -> Answer:
        """Delete a version that nothing uses."""
        return self._ask("DELETE", f"/v1/models/{_segment(name)}/versions/{version}")

    def download(self, reference: str, folder: Path, *, progress: Progress | None = None) -> Answer:
        """Fetch every file of a version into the folder and compare its hash; the version.

        Raises ``OSError`` for a file that arrived damaged. Of an adapter this is the adapter alone.
        """
        model = self.get(reference)
        version = model["nightshift"]
        files = f"/v1/models/{_segment(version['name'])}/versions/{version['version']}/files"
        done = 0
        for file in version["files"]:
            report = _shifted(progress, by=done, total=version["bytes"])
            target = folder / bundles.inner(file["path"])
            target.parent.mkdir(parents=True, exist_ok=True)
            self._fetch(f"{files}/{quote(file['path'])}", target, progress=report)
            _check(target, file["sha256"])
            done += file["bytes"]
        return model

    def _pages(self, path: str) -> Iterator[Answer]:
        query = {"limit": PAGE}
        while True:
            page = self._ask("GET", path, params=query)
            yield from page["data"]
            if not page["has_more"]:
                return
            query["after"] = page["next"]


def _segment(text: str) -> str:
    """One segment of a path, whatever it is made of."""
    return quote(text, safe="@")


def _alias(name: str, alias: str) -> str:
    return f"/v1/models/{_segment(name)}/aliases/{_segment(alias)}"


def _shifted(progress: Progress | None, *, by: int, total: int) -> Progress | None:
    """The progress of one file as that of all."""
    if progress is None:
        return None
    return lambda done, _: progress(by + done, total)


def _check(path: Path, sha256: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise OSError(errno.EIO, f"arrived with the sha256 {found}, not {sha256}", str(path))
