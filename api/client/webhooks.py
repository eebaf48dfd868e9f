"""The part of the Python client that is about webhooks: ``client.webhooks``."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence

from api.client.transport import Answer

LOOK_SECONDS = 0.5


class Webhooks:
    """The project's webhook endpoints, each by its id."""

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

    def create(
        self,
        url: str | None = None,
        *,
        email: str | None = None,
        name: str = "",
        event_types: Sequence[str] = (),
        idempotency_key: str | None = None,
    ) -> Answer:
        """Make an endpoint for a URL or for an address; ``signing_secret`` is shown now alone."""
        place = {"url": url, "email": email}
        body = {key: value for key, value in place.items() if value is not None}
        return self._ask(
            "POST",
            "/v1/webhook_endpoints",
            json={**body, "name": name, "event_types": list(event_types)},
            headers={"Idempotency-Key": idempotency_key or uuid.uuid4().hex},
        )

    def list(self) -> Iterator[Answer]:
        """Every endpoint, newest first."""
        return self._pages("/v1/webhook_endpoints", {})

    def get(self, endpoint: str) -> Answer:
        """The endpoint as it is now."""
        return self._ask("GET", _path(endpoint))

    def edit(
        self,
        endpoint: str,
        *,
        url: str | None = None,
        name: str | None = None,
        event_types: Sequence[str] | None = None,
    ) -> Answer:
        """Change what is given."""
        types = None if event_types is None else list(event_types)
        change = {"url": url, "name": name, "event_types": types}
        given = {key: value for key, value in change.items() if value is not None}
        return self._ask("POST", _path(endpoint), json=given)

    def rotate(self, endpoint: str, *, overlap: str | float | None = None) -> Answer:
        """A new ``signing_secret``; the one before signs beside it for ``overlap``, ``"1d"``."""
        body = {} if overlap is None else {"overlap": overlap}
        return self._ask("POST", _path(endpoint, "rotate_secret"), json=body)

    def enable(self, endpoint: str, *, skip_waiting: bool = False) -> Answer:
        """Send what waits at once, or leave it out."""
        return self._ask("POST", _path(endpoint, "enable"), json={"skip_waiting": skip_waiting})

    def test(self, endpoint: str, *, event_type: str | None = None) -> Answer:
        """Send a sample event; its ``delivery`` is on its way."""
        body = {} if event_type is None else {"event_type": event_type}
        return self._ask("POST", _path(endpoint, "test"), json=body)

    def deliveries(self, endpoint: str, *, state: str | None = None) -> Iterator[Answer]:
        """Its deliveries of the last 30 days, newest first."""
        query = {} if state is None else {"state": state}
        return self._rows(
            _path(endpoint, "deliveries"), more=lambda page: bool(page["has_more"]), query=query
        )

    def delivery(self, endpoint: str, delivery: int) -> Answer:
        """One delivery as it is now."""
        return self._ask("GET", _path(endpoint, f"deliveries/{delivery}"))

    def wait(self, endpoint: str, delivery: int, *, seconds: float) -> Answer:
        """The delivery once it was tried, or as it is after ``seconds``."""
        until = time.monotonic() + seconds
        while True:
            found = self.delivery(endpoint, delivery)
            tried = found["state"] != "pending" or found["error"] is not None
            if tried or time.monotonic() > until:
                return found
            time.sleep(LOOK_SECONDS)

    def resend(self, endpoint: str, delivery: int) -> Answer:
        """Send an event again; the delivery that does it."""
        return self._ask("POST", _path(endpoint, f"deliveries/{delivery}/resend"))

    def delete(self, endpoint: str) -> Answer:
        """Delete an endpoint; what waits for it is not sent."""
        return self._delete(_path(endpoint))


def _path(endpoint: str, rest: str = "") -> str:
    path = f"/v1/webhook_endpoints/{endpoint}"
    return f"{path}/{rest}" if rest else path
