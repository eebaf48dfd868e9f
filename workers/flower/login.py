"""Who may log in: checked before Flower listens, so that it is never open by a slip."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from celery.utils.imports import symbol_by_name
from flower.utils.authentication import validate_auth_option
from flower.views import BaseHandler
from flower.views import auth as flowers

from jobs.errors import BadRequest

OAUTH2 = ("oauth2_key", "oauth2_secret", "oauth2_redirect_uri")
OKTA = "FLOWER_OAUTH2_OKTA_BASE_URL"


def check(options: Any, *, environment: Mapping[str, str] = os.environ) -> None:
    """Raise ``BadRequest`` for options that leave Flower open, or let no one in."""
    if not (options.basic_auth or options.auth):
        raise BadRequest(
            "Flower shows the jobs of all projects, so it needs a login: set "
            "NIGHTSHIFT_FLOWER_BASIC_AUTH to user:password, or --auth and --auth_provider"
        )
    for each in options.basic_auth or ():
        user, _, password = each.partition(":")
        if not (user and password):
            raise BadRequest("NIGHTSHIFT_FLOWER_BASIC_AUTH must be user:password, both not empty")
    if options.auth:
        _check_provider(options, environment)


def _check_provider(options: Any, environment: Mapping[str, str]) -> None:
    if not options.auth_provider:
        raise BadRequest("--auth needs --auth_provider, which says who logs people in")
    if not validate_auth_option(options.auth):
        raise BadRequest(
            f"--auth must be addresses divided by |, or one pattern such as .*@example.com, "
            f"not {options.auth!r}"
        )
    provider = _provider(options.auth_provider)
    if provider.__module__ != flowers.__name__:
        return  # of somebody else, who knows what it needs
    for name in OAUTH2:
        if not (getattr(options, name) or environment.get(f"FLOWER_{name.upper()}")):
            raise BadRequest(f"{options.auth_provider} needs FLOWER_{name.upper()}")
    if provider is flowers.OktaLoginHandler and not environment.get(OKTA):
        raise BadRequest(f"{options.auth_provider} needs {OKTA}, the issuer's address")


def _provider(name: str) -> type[Any]:
    try:
        found = symbol_by_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadRequest(f"--auth_provider {name!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, BaseHandler)):
        raise BadRequest(f"--auth_provider {name!r} is no login handler of Flower")
    return found
