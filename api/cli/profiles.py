"""Servers by name, each with its key: ``~/.config/nightshift/config.toml``, readable by its owner.

default = "lab"

[profiles.lab]
url = "https://nightshift.lab.example.org"
key = "ns_..."
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from api.cli import arguments, console, tables
from api.cli.failures import Failure
from api.cli.tables import Column
from jobs import validation

app = typer.Typer(help="Servers by name, each with its key.")

OWNER_ONLY = 0o600
_OTHERS = 0o077


class Profile(BaseModel):
    """A server and the key of a project there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    key: SecretStr | None = None

    @field_validator("url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if not is_url(value):
            raise ValueError(f"url must be such as https://nightshift.example.org, not {value!r}")
        return value


class Config(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default: str | None = None
    profiles: Mapping[str, Profile] = Field(default_factory=dict)


def is_url(text: str) -> bool:
    """Whether a text is the address of a server."""
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        return False
    return url.scheme in ("http", "https") and bool(url.host)


def path() -> Path:
    """Where the file is, by the XDG base directories."""
    folder = os.environ.get("XDG_CONFIG_HOME", "")
    base = Path(folder) if Path(folder).is_absolute() else Path.home() / ".config"
    return base / "nightshift" / "config.toml"


def read() -> Config:
    """The file; one without profiles where there is none. Raises ``Failure``."""
    file = path()
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Config()
    except UnicodeDecodeError as error:
        raise Failure(f"{file} must be TOML in UTF-8 ({error.reason})") from error
    if file.stat().st_mode & _OTHERS:
        raise Failure(f"{file} holds keys and others may read it: `chmod 600 {file}`")
    try:
        config = Config.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise Failure(f"{file} must be TOML ({error})") from error
    except ValidationError as error:
        raise Failure(f"{file}: {validation.explain(error.errors())[0]}") from error
    return config


def named(name: str) -> Profile:
    """The profile of this name. Raises ``Failure``."""
    config = read()
    if name not in config.profiles:
        known = ", ".join(sorted(config.profiles)) or "none"
        raise Failure(
            f"there is no profile {name!r} in {path()} (there are: {known}); "
            f"`nightshift profiles set {name} URL` makes it"
        )
    return config.profiles[name]


def default() -> Profile | None:
    """The profile that is used where none is named; ``None``: the file names none."""
    name = read().default
    return None if name is None else named(name)


@app.command("list")
def list_profiles(*, json: arguments.Json = False) -> None:
    """Every profile; its key is not shown."""
    config = read()
    found = [
        {
            "name": name,
            "url": profile.url,
            "key": profile.key is not None,
            "default": name == config.default,
        }
        for name, profile in sorted(config.profiles.items())
    ]
    tables.listing(
        found,
        (Column("PROFILE"), Column("URL"), Column("KEY", cut=1), Column("DEFAULT", cut=1)),
        _row,
        json=json,
    )


@app.command("set")
def set_profile(
    name: arguments.ProfileName,
    url: Annotated[str, typer.Argument(metavar="URL", help="The server's address.")],
    *,
    make_default: Annotated[
        bool, typer.Option("--default", help="Use it where no profile is named.")
    ] = False,
) -> None:
    """Make or change a profile; the key is NIGHTSHIFT_API_KEY, else it is asked for."""
    if not is_url(url):
        raise Failure(f"URL must be such as https://nightshift.example.org, not {url!r}")
    config = read()
    key = os.environ.get("NIGHTSHIFT_API_KEY", "").strip() or _ask_for_key(url)
    if not arguments.is_key(key):
        raise Failure("the key must be printable ASCII without spaces")
    profiles = {**config.profiles, name: Profile(url=url, key=SecretStr(key))}
    _write(Config(default=name if make_default else config.default, profiles=profiles))
    console.line(f"{name} is {url}: `nightshift --profile {name} jobs list`")


@app.command("delete")
def delete(name: arguments.ProfileName) -> None:
    """Forget a profile and its key."""
    named(name)
    config = read()
    profiles = {other: each for other, each in config.profiles.items() if other != name}
    _write(Config(default=None if config.default == name else config.default, profiles=profiles))
    console.line(f"{name} is forgotten")


def _row(profile: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        profile["name"],
        profile["url"],
        "yes" if profile["key"] else "no",
        "yes" if profile["default"] else "",
    )


def _ask_for_key(url: str) -> str:
    if not os.isatty(0):
        raise Failure("NIGHTSHIFT_API_KEY must hold the key of the profile")
    return str(typer.prompt(f"API key for {url}", hide_input=True)).strip()


def _write(config: Config) -> None:
    """Write the file under another name first: it is always whole, and never open to others."""
    file = path()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write(_toml(config))
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _toml(config: Config) -> str:
    lines = [] if config.default is None else [f"default = {_text(config.default)}", ""]
    for name, profile in sorted(config.profiles.items()):
        lines += [f"[profiles.{_text(name)}]", f"url = {_text(profile.url)}"]
        if profile.key is not None:
            lines.append(f"key = {_text(profile.key.get_secret_value())}")
        lines.append("")
    return "\n".join(lines)


def _text(value: str) -> str:
    """A basic string of TOML, which is one of JSON."""
    return json.dumps(value, ensure_ascii=False)
