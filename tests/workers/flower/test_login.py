"""Flower does not start open, nor with a login that lets no one in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from jobs.errors import BadRequest
from workers.flower import login

GOOGLE = "flower.views.auth.GoogleAuth2LoginHandler"
OKTA = "flower.views.auth.OktaLoginHandler"
OAUTH2 = {
    "FLOWER_OAUTH2_KEY": "key",
    "FLOWER_OAUTH2_SECRET": "secret",
    "FLOWER_OAUTH2_REDIRECT_URI": "https://flower.example.com/login",
}


def options(**given: Any) -> SimpleNamespace:
    names = ("basic_auth", "auth", "auth_provider", *login.OAUTH2)
    return SimpleNamespace(**{name: given.get(name) for name in names})


@pytest.mark.parametrize(
    "given",
    [
        {"basic_auth": ["ann:secret"]},
        {"auth": ".*@example.com", "auth_provider": GOOGLE},
        {"auth": "ann@example.com|bob@example.com", "auth_provider": GOOGLE},
    ],
)
def test_a_login_that_is_whole_is_taken(given: dict[str, Any]) -> None:
    login.check(options(**given), environment=OAUTH2)


@pytest.mark.parametrize(
    ("given", "lacks", "words"),
    [
        ({}, "", "needs a login"),
        ({"auth_provider": GOOGLE}, "", "needs a login"),
        ({"basic_auth": ["ann"]}, "", "user:password"),
        ({"basic_auth": ["ann:"]}, "", "user:password"),
        ({"basic_auth": ["ann:secret", ":"]}, "", "user:password"),
        ({"auth": ".*@example.com"}, "", "--auth_provider"),
        ({"auth": ".*", "auth_provider": GOOGLE}, "", "--auth must be"),
        ({"auth": "a@b.c", "auth_provider": "no.such.Handler"}, "", "cannot be imported"),
        (
            {"auth": "a@b.c", "auth_provider": "flower.views.auth.NoSuchHandler"},
            "",
            "cannot be imported",
        ),
        ({"auth": "a@b.c", "auth_provider": "pathlib.Path"}, "", "no login handler"),
        ({"auth": "a@b.c", "auth_provider": GOOGLE}, "FLOWER_OAUTH2_SECRET", "OAUTH2_SECRET"),
        ({"auth": "a@b.c", "auth_provider": GOOGLE}, "FLOWER_OAUTH2_REDIRECT_URI", "REDIRECT_URI"),
        ({"auth": "a@b.c", "auth_provider": OKTA}, "", login.OKTA),
    ],
)
def test_a_login_with_a_hole_is_refused_in_words(
    given: dict[str, Any], lacks: str, words: str
) -> None:
    environment = {name: value for name, value in OAUTH2.items() if name != lacks}
    with pytest.raises(BadRequest, match=words):
        login.check(options(**given), environment=environment)
