"""Flower as a process of its own, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from api.stack import ports
from tests.support.installation import Installation
from tests.support.waiting import wait_until

LOGIN = ("user", "word")


@contextmanager
def flower(installation: Installation, **env: str) -> Iterator[httpx.Client]:
    """A client that is logged in, of a Flower that answers; ``env``: more of its variables."""
    port = ports.choose()
    process = installation.start(
        *("workers.processes", "flower", f"--port={port}"),
        NIGHTSHIFT_FLOWER_BASIC_AUTH=":".join(LOGIN),
        **env,
    )
    prefix = env.get("FLOWER_URL_PREFIX", "")
    url = f"http://127.0.0.1:{port}/{prefix}".rstrip("/")
    try:
        with httpx.Client(base_url=url, auth=LOGIN, timeout=30) as client:
            wait_until(lambda: answers(client), seconds=60)
            yield client
    finally:
        process.stop()


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthcheck").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
