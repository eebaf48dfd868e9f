"""Which API a command talks to, and with which key.

``--api`` or ``NIGHTSHIFT_API_URL`` with ``NIGHTSHIFT_API_KEY``; else the stack that
``nightshift up`` started, by the ``stack.json`` and ``key`` of its state folder.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import httpx
import typer

from api.cli.failures import Failure
from api.client import Client

FIRST_PATIENCE_SECONDS = 2.0
"""How long the first request waits for an answer: a user learns soon that the API is down."""

Api = Annotated[
    str | None,
    typer.Option(
        "--api",
        envvar="NIGHTSHIFT_API_URL",
        metavar="URL",
        help="The API's address. Default: the stack of `nightshift up`.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Watch = Annotated[bool | None, typer.Option("--watch/--no-watch", help="Default: on a terminal.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, `job_...`.")]


def home() -> Path:
    """The state folder of the embedded stack."""
    return Path(os.environ.get("NIGHTSHIFT_HOME") or Path.home() / ".nightshift")


def connect(api: str | None) -> Client:
    """A client of an API that answers. Raises ``Failure``, ``ApiError``."""
    url = api or _local_url()
    if not url.startswith(("http://", "https://")):
        raise Failure(f"--api must be a URL such as http://127.0.0.1:8750, not {url!r}")
    client = Client(url, _key(url), patience_seconds=FIRST_PATIENCE_SECONDS)
    client.ping()
    client.patience_seconds = Client.PATIENCE_SECONDS
    return client


def _local_url() -> str:
    url = _stack_url()
    if url is None:
        raise Failure(
            f"no stack runs on {home()}: start one with `nightshift up`, "
            "or name an API with --api and NIGHTSHIFT_API_KEY",
            code=3,
        )
    return url


def _stack_url() -> str | None:
    try:
        return str(json.loads((home() / "stack.json").read_text())["api_url"])
    except (OSError, ValueError, KeyError):
        return None


def _key(url: str) -> str:
    """The key in the environment; the state folder's own goes to its own API alone."""
    if key := os.environ.get("NIGHTSHIFT_API_KEY", "").strip():
        return key
    if httpx.URL(url) != httpx.URL(_stack_url() or "http://nowhere"):
        raise Failure(f"NIGHTSHIFT_API_KEY must hold an API key for {url}")
    try:
        return (home() / "key").read_text().strip()
    except OSError as error:
        raise Failure(
            f"there is no key in {home()}: set NIGHTSHIFT_API_KEY, or run `nightshift up` again"
        ) from error
