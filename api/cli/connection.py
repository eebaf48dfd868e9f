"""Which API a command talks to, and with which key.

The address: ``--api``, behind the command or before it; ``NIGHTSHIFT_API_URL``; the profile of
``--profile``, ``NIGHTSHIFT_PROFILE`` or the config file; the stack that ``nightshift up`` started,
by the ``stack.json`` of its state folder. The key: ``NIGHTSHIFT_API_KEY``, else what the profile or
the state folder has for that address. A key goes to its own address alone.
"""

from __future__ import annotations

import json
import os
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import httpx
import typer

from api.cli import arguments, console, profiles
from api.cli.failures import Failure
from api.client import Client

FIRST_PATIENCE_SECONDS = 2.0
"""How long the first request waits for an answer: a user learns soon that the API is down."""

URL, KEY, PROFILE = "NIGHTSHIFT_API_URL", "NIGHTSHIFT_API_KEY", "NIGHTSHIFT_PROFILE"

Api = Annotated[
    str | None,
    typer.Option(
        "--api",
        metavar="URL",
        help="The API's address. Default: NIGHTSHIFT_API_URL, else the profile's, else the stack "
        "of `nightshift up`.",
    ),
]
Profile = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="NAME",
        help="A server of `nightshift profiles`. Default: NIGHTSHIFT_PROFILE, else the default of "
        "the config file.",
    ),
]


@dataclass(frozen=True)
class Before:
    """What was given before the command."""

    api: str | None = None
    profile: str | None = None


before: ContextVar[Before | None] = ContextVar("before", default=None)


@dataclass(frozen=True)
class Address:
    """A server, and the key that belongs to it; ``None``: none is known."""

    url: str
    key: str | None


def home() -> Path:
    """The state folder of the embedded stack."""
    return Path(os.environ.get("NIGHTSHIFT_HOME") or Path.home() / ".nightshift")


def connect(api: str | None) -> Client:
    """A client of an API that answers. Raises ``Failure``, ``ApiError``."""
    found = address(api)
    client = Client(found.url, _key(found), patience_seconds=FIRST_PATIENCE_SECONDS)
    client.ping()
    client.patience_seconds = Client.PATIENCE_SECONDS
    return client


def address(api: str | None) -> Address:
    """Where to go; what is nearer to the command wins. Raises ``Failure``."""
    found = _address(api)
    if not profiles.is_url(found.url):
        raise Failure(f"--api must be a URL such as http://127.0.0.1:8750, not {found.url!r}")
    return found


def _address(api: str | None) -> Address:
    given = before.get() or Before()
    url = api or given.api
    if url and given.profile:
        raise Failure("--api and --profile both name a server: give one of them")
    if url is None and (url := _environment(URL)) and given.profile:
        console.note(f"{URL} is set and wins over --profile {given.profile}")
    profile = _profile(given.profile)
    if url is None:
        return profile or _local()
    known = (each for each in (profile, _stack()) if each is not None)
    key = next((each.key for each in known if _is_same(each.url, url)), None)
    return Address(url, key)


def _profile(name: str | None) -> Address | None:
    name = name or _environment(PROFILE)
    found = profiles.named(name) if name else profiles.default()
    if found is None:
        return None
    return Address(found.url, found.key.get_secret_value() if found.key else None)


def _local() -> Address:
    found = _stack()
    if found is None:
        raise Failure(
            f"no stack runs on {home()}: start one with `nightshift up`, "
            "or name an API with --api and NIGHTSHIFT_API_KEY",
            code=3,
        )
    if found.key is None and not _environment(KEY):
        raise Failure(f"there is no key in {home()}: set {KEY}, or run `nightshift up` again")
    return found


def _stack() -> Address | None:
    """The stack of the state folder, if one runs."""
    try:
        url = str(json.loads((home() / "stack.json").read_text())["api_url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    try:
        return Address(url, (home() / "key").read_text().strip())
    except (OSError, ValueError):
        return Address(url, None)


def _key(address: Address) -> str:
    """The key in the environment, else that of the address."""
    key = _environment(KEY) or address.key
    if key is None:
        raise Failure(f"{KEY} must hold an API key for {address.url}")
    if not arguments.is_key(key):
        raise Failure(f"{KEY} must hold an API key, which is printable ASCII without spaces")
    return key


def _environment(name: str) -> str | None:
    return os.environ.get(name, "").strip() or None


def _is_same(one: str, other: str) -> bool:
    try:
        return httpx.URL(one) == httpx.URL(other)
    except httpx.InvalidURL:
        return False
