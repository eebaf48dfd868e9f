"""What a check found: well, doubtful or broken, in one line, with what to do about it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from urllib.parse import unquote, urlsplit

from pydantic_settings import SettingsError

from jobs import secret_files
from jobs.settings import Settings

SECRET_VARIABLES = (
    "NIGHTSHIFT_API_KEY",
    "NIGHTSHIFT_FLOWER_BASIC_AUTH",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "HF_TOKEN",
)
LEAST_SECRET = 4
"""Characters of a secret that is looked for: shorter ones are parts of words."""


class CheckStatus(StrEnum):
    """How well it is; an error keeps the installation from working."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class CheckResult:
    """One line; ``advice`` is empty if and only if all is well."""

    check: str
    status: CheckStatus
    sentence: str
    advice: str = ""


def ok(check: str, sentence: str) -> CheckResult:
    """All is well."""
    return CheckResult(check, CheckStatus.OK, sentence)


def warning(check: str, sentence: str, advice: str) -> CheckResult:
    """It works, and will not always, or not for everyone."""
    return CheckResult(check, CheckStatus.WARNING, sentence, advice)


def error(check: str, sentence: str, advice: str) -> CheckResult:
    """It does not work."""
    return CheckResult(check, CheckStatus.ERROR, sentence, advice)


def secrets(settings: Settings, variables: Mapping[str, str] = os.environ) -> set[str]:
    """Passwords in the settings' URLs, and what variables with secrets hold."""
    found: set[str] = set()
    for url in (
        settings.database_url,
        settings.redis_url,
        settings.object_store_url,
        settings.smtp_url,
    ):
        password = _password(url)
        found |= {password, unquote(password)}
    found |= {_held(name, variables) for name in SECRET_VARIABLES}
    found.add(_held("NIGHTSHIFT_FLOWER_BASIC_AUTH", variables).partition(":")[2])
    return {secret for secret in found if len(secret) >= LEAST_SECRET}


def _held(name: str, variables: Mapping[str, str]) -> str:
    try:
        return secret_files.read(name, variables) or ""
    except SettingsError:  # a file that cannot be read gives nothing away
        return variables.get(name, "")


def _password(url: str) -> str:
    try:
        return urlsplit(url).password or ""
    except ValueError:  # no URL at all
        return url.partition("//")[2].rpartition("@")[0]


def redacted(found: Iterable[CheckResult], hidden: Iterable[str]) -> list[CheckResult]:
    """The findings on one line each, without any of the secrets."""
    longest_first = sorted(hidden, key=len, reverse=True)

    def clean(text: str) -> str:
        for secret in longest_first:
            text = text.replace(secret, "***")
        return " ".join(text.split())

    return [
        replace(each, sentence=clean(each.sentence), advice=clean(each.advice)) for each in found
    ]
