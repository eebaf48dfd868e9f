"""What an endpoint may be."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from jobs.webhooks.endpoints import EndpointRequest, Rotation


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://example.com/hook", "https://example.com/hook"),
        ("HTTPS://Example.COM", "https://example.com/"),
        ("https://bücher.example/ä?q=ü", "https://xn--bcher-kva.example/%C3%A4?q=%C3%BC"),
        ("http://2130706433/", "http://127.0.0.1/"),
        ("http://0x7f.1/", "http://127.0.0.1/"),
        ("http://[::1]:80/", "http://[::1]/"),
        ("https://example.com:8443/x", "https://example.com:8443/x"),
    ],
)
def test_a_url_is_kept_as_it_is_sent(given: str, kept: str) -> None:
    assert EndpointRequest(url=given).url == kept


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "either url or email"),
        ({"url": "https://example.com", "email": "a@example.com"}, "either url or email"),
        ({"url": "ftp://example.com"}, "http or https"),
        ({"url": "example.com"}, "http or https"),
        ({"url": "https://"}, "http or https"),
        ({"url": "https://user@example.com"}, "without user and password"),
        ({"url": "https://user:word@example.com"}, "without user and password"),
        ({"url": "https://example.com/#part"}, "without a fragment"),
        ({"url": "https://example.com/" + "x" * 2_000}, "at most 2000"),
        ({"email": "person"}, "pattern"),
        ({"email": "a@example.com\nBcc: b@example.com"}, "pattern"),
        ({"email": "a b@example.com"}, "pattern"),
        ({"url": "https://example.com", "event_types": ["job.begun"]}, "job.succeeded"),
        ({"url": "https://example.com", "name": "a\nb"}, "pattern"),
    ],
)
def test_what_cannot_be_an_endpoint_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        EndpointRequest(**fields)


@pytest.mark.parametrize(
    ("fields", "overlap"),
    [
        ({}, timedelta(days=1)),
        ({"overlap": "2h"}, timedelta(hours=2)),
        ({"overlap": 0}, timedelta()),
        ({"keep_old_secret_active_for_24_hours": True}, timedelta(days=1)),
        ({"keep_old_secret_active_for_24_hours": False}, timedelta()),
    ],
)
def test_how_long_secrets_overlap(fields: dict[str, Any], overlap: timedelta) -> None:
    assert Rotation(**fields).duration == overlap


def test_an_overlap_has_a_limit() -> None:
    with pytest.raises(ValidationError, match="30 days"):
        Rotation(overlap="31d")
