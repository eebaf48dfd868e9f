"""The parts of the Python client about projects and keys: ``client.projects``, ``client.keys``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from api.client.transport import Answer


class Projects:
    """The tenants of the installation; most of it needs a key that operates it."""

    def __init__(
        self, *, ask: Callable[..., Answer], pages: Callable[..., Iterator[Answer]]
    ) -> None:
        self._ask = ask
        self._pages = pages

    def create(self, project: str, *, name: str = "", weight: float = 1.0) -> Answer:
        """Make a project; it has no key yet."""
        body = {"id": project, "name": name, "weight": weight}
        return self._ask("POST", "/v1/projects", json=body)

    def list(self) -> Iterator[Answer]:
        """Every project, by id."""
        return self._pages("/v1/projects", {})

    def get(self, project: str) -> Answer:
        """One project."""
        return self._ask("GET", f"/v1/projects/{project}")

    def edit(self, project: str, **change: Any) -> Answer:
        """Change what is given of ``name``, ``weight`` and ``limits``, which are replaced."""
        given = {field: value for field, value in change.items() if value is not None}
        return self._ask("PATCH", f"/v1/projects/{project}", json=given)


class Keys:
    """The keys of a project, each by its id."""

    def __init__(
        self, *, ask: Callable[..., Answer], pages: Callable[..., Iterator[Answer]]
    ) -> None:
        self._ask = ask
        self._pages = pages

    def create(
        self,
        name: str = "",
        *,
        scopes: Sequence[str] = ("read", "submit"),
        expires_in: str | float | None = None,
        project: str | None = None,
    ) -> Answer:
        """Make a key; ``key`` is shown now alone. ``expires_in``: seconds, or as ``"90d"``."""
        body = {"name": name, "scopes": list(scopes), "expires_in": expires_in, "project": project}
        return self._ask("POST", "/v1/keys", json=body)

    def list(self, *, project: str | None = None) -> Iterator[Answer]:
        """Every key, newest first, those that have ended too."""
        return self._pages("/v1/keys", {} if project is None else {"project": project})

    def current(self) -> Answer:
        """What the client's own key may do, and for which project."""
        return self._ask("GET", "/v1/keys/current")

    def get(self, key_id: str) -> Answer:
        """One key."""
        return self._ask("GET", f"/v1/keys/{key_id}")

    def rotate(
        self,
        key_id: str,
        *,
        overlap: str | float | None = None,
        expires_in: str | float | None = None,
    ) -> Answer:
        """A new ``key`` in place of this one, which stays valid for ``overlap``, ``"1d"``."""
        change = {"overlap": overlap, "expires_in": expires_in}
        given = {field: value for field, value in change.items() if value is not None}
        return self._ask("POST", f"/v1/keys/{key_id}/rotate", json=given)

    def revoke(self, key_id: str) -> Answer:
        """End a key for good."""
        return self._ask("POST", f"/v1/keys/{key_id}/revoke")
