"""The part of the Python client that is about groups of jobs: ``client.groups``."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from api.client.transport import Answer
from jobs.states import FINAL

LOOK_SECONDS = 1.0


class Groups:
    """The project's groups, by id."""

    def __init__(
        self, *, ask: Callable[..., Answer], pages: Callable[..., Iterator[Answer]]
    ) -> None:
        self._ask = ask
        self._pages = pages

    def submit(self, spec: Mapping[str, Any], *, idempotency_key: str | None = None) -> Answer:
        """Submit jobs that need one another, or a sweep: all of them or none."""
        key = idempotency_key or uuid.uuid4().hex
        return self._ask("POST", "/v1/groups", json=dict(spec), headers={"Idempotency-Key": key})

    def get(self, group_id: str) -> Answer:
        """The group as it is now."""
        return self._ask("GET", f"/v1/groups/{group_id}")

    def metrics(self, group_id: str) -> list[Answer]:
        """What its members that train have measured."""
        return list(self._ask("GET", f"/v1/groups/{group_id}/metrics")["data"])

    def cancel(self, group_id: str) -> Answer:
        """Cancel every member that has not ended."""
        return self._ask("POST", f"/v1/groups/{group_id}/cancel")

    def retry(self, group_id: str) -> Answer:
        """Retry every member that failed or was cancelled."""
        return self._ask("POST", f"/v1/groups/{group_id}/retry")

    def list(self) -> Iterator[Answer]:
        """Every group, newest first."""
        return self._pages("/v1/groups", {})

    def watch(self, group_id: str) -> Iterator[Answer]:
        """The group each second, until all of its members have ended."""
        while True:
            group = self.get(group_id)
            yield group
            if group["state"] in FINAL:
                return
            time.sleep(LOOK_SECONDS)
