"""What a key may do: the project that it acts for, and its scopes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from jobs.errors import Forbidden, NotFound


class Scope(StrEnum):
    """A part of the API; none of them contains another."""

    READ = "read"  # look at what the project has
    SUBMIT = "submit"  # upload, submit, control, delete
    ADMIN = "admin"  # keys, audit, retention and webhooks of the project
    OPERATE = "operate"  # projects of the installation, and their keys


ALL_SCOPES = tuple(Scope)
OPERATORS = "default"
"""The project whose keys may operate the installation, where nothing else was said."""


@dataclass(frozen=True)
class Rights:
    """Of one valid key."""

    project_id: str
    key_id: str
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        """Whether the key has the scope."""
        return scope in self.scopes

    def check(self, scope: Scope) -> None:
        """Raise ``Forbidden`` without the scope."""
        if not self.may(scope):
            raise Forbidden(
                f"this needs a key with the scope {scope}; {self.key_id} has {_words(self.scopes)}"
            )

    def check_grant(self, scopes: Iterable[Scope]) -> None:
        """Raise ``Forbidden`` for scopes that the key does not have: it cannot give them."""
        missing = set(scopes) - self.scopes
        if missing:
            raise Forbidden(
                f"a key gives no more than it has: {self.key_id} lacks {_words(missing)}",
                param="scopes",
            )

    def project(self, given: str | None) -> str:
        """The project that is meant: by default its own, with ``operate`` any.

        Raises ``NotFound`` for another's, as for one that there is not.
        """
        if given is None or given == self.project_id or Scope.OPERATE in self.scopes:
            return given or self.project_id
        raise no_project(given)


def no_project(project_id: str) -> NotFound:
    """The answer to the id of a project that there is not, or is not the caller's."""
    return NotFound(f"no project {project_id!r} here", param="project")


def default_scopes(project_id: str) -> tuple[Scope, ...]:
    """Of a key that an operator makes valid for a project without saying more."""
    if project_id == OPERATORS:
        return ALL_SCOPES
    return tuple(scope for scope in ALL_SCOPES if scope is not Scope.OPERATE)


def _words(scopes: Iterable[Scope]) -> str:
    found = set(scopes)
    return ", ".join(scope for scope in ALL_SCOPES if scope in found)
