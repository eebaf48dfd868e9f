"""The part of the Python client that is about schedules: ``client.schedules``."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from api.client.transport import Answer


class Schedules:
    """The project's schedules. Each is meant by its id or its name."""

    def __init__(
        self,
        *,
        ask: Callable[..., Answer],
        pages: Callable[..., Iterator[Answer]],
        rows: Callable[..., Iterator[Answer]],
        delete: Callable[[str], Answer],
    ) -> None:
        self._ask = ask
        self._pages = pages
        self._rows = rows
        self._delete = delete

    def create(self, schedule: Mapping[str, Any], *, idempotency_key: str | None = None) -> Answer:
        """Make a schedule; the same key with the same body is one schedule.

        Its ``jobs`` are one spec, ``[{"spec": ...}]``, or those of a group by name.
        """
        return self._ask(
            "POST", "/v1/schedules", json=dict(schedule), headers=_key(idempotency_key)
        )

    def list(self) -> Iterator[Answer]:
        """Every schedule, newest first."""
        return self._pages("/v1/schedules", {})

    def get(self, schedule: str) -> Answer:
        """The schedule as it is now."""
        return self._ask("GET", _path(schedule))

    def edit(self, schedule: str, change: Mapping[str, Any]) -> Answer:
        """Change what is given, as a merge patch."""
        return self._ask("PATCH", _path(schedule), json=dict(change))

    def pause(self, schedule: str, *, note: str | None = None) -> Answer:
        """Let nothing go until it is resumed."""
        return self._ask("POST", _path(schedule, "pause"), json={"note": note})

    def resume(self, schedule: str, *, note: str | None = None) -> Answer:
        """Go on with the next fire time."""
        return self._ask("POST", _path(schedule, "resume"), json={"note": note})

    def trigger(
        self, schedule: str, *, overlap: str | None = None, idempotency_key: str | None = None
    ) -> Answer:
        """Fire now; the fire."""
        body = {} if overlap is None else {"overlap": overlap}
        return self._ask(
            "POST", _path(schedule, "trigger"), json=body, headers=_key(idempotency_key)
        )

    def backfill(
        self, schedule: str, *, since: datetime, until: datetime, at_most: int = 1
    ) -> Answer:
        """Fire for past times that have had no job, at most ``at_most`` of them at a time."""
        body = {"since": since.isoformat(), "until": until.isoformat(), "at_most": at_most}
        return self._ask("POST", _path(schedule, "backfill"), json=body)

    def fires(self, schedule: str, *, state: str | None = None) -> Iterator[Answer]:
        """Its fires by time, the latest first."""
        query = {} if state is None else {"state": state}
        return self._rows(
            _path(schedule, "fires"), more=lambda page: bool(page["has_more"]), query=query
        )

    def preview(self, schedule: str, *, count: int = 20) -> Answer:
        """Its next fires, in UTC and in its zone."""
        return self._ask("GET", _path(schedule, "preview"), params={"limit": count})

    def versions(self, schedule: str) -> Iterator[Answer]:
        """What it was before each edit, newest first."""
        return self._rows(_path(schedule, "versions"), more=lambda page: bool(page["has_more"]))

    def delete(self, schedule: str) -> Answer:
        """Delete a schedule; its jobs stay."""
        return self._delete(_path(schedule))


def _path(schedule: str, verb: str = "") -> str:
    return f"/v1/schedules/{schedule}{verb and f'/{verb}'}"


def _key(given: str | None) -> dict[str, str]:
    return {"Idempotency-Key": given or uuid.uuid4().hex}
