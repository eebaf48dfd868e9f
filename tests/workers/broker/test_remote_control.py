"""Questions of Flower pass; orders and what cannot be read do not."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from workers.broker import remote_control
from workers.broker.envelope import Reason, Refused


def command(**body: Any) -> bytes:
    encoded = base64.b64encode(json.dumps(body).encode()).decode()
    return json.dumps({"body": encoded, "headers": {"expires": "x"}, "properties": 7}).encode()


def reason(raw: bytes) -> Reason | None:
    try:
        remote_control.vetted(raw)
    except Refused as refused:
        return refused.reason
    return None


def test_a_question_passes_with_nothing_but_what_it_needs() -> None:
    asked = command(
        method="conf",
        arguments={"with_defaults": True, "junk": "x" * 99},
        destination=["a@b"],
        pattern="(a+)+$",
        matcher="pcre",
        reply_to={"exchange": "reply.celery.pidbox", "routing_key": "r", "junk": 1},
        ticket="t",
    )
    passed = json.loads(base64.b64decode(json.loads(remote_control.vetted(asked))["body"]))
    assert passed == {
        "method": "conf",
        "arguments": {"with_defaults": True},
        "destination": ["a@b"],
        "pattern": None,
        "matcher": None,
        "ticket": "t",
        "reply_to": {"exchange": "reply.celery.pidbox", "routing_key": "r"},
    }


@pytest.mark.parametrize(
    "method",
    [
        *("shutdown", "pool_restart", "pool_shrink", "autoscale", "cancel_consumer"),
        *("add_consumer", "revoke", "terminate", "rate_limit", "time_limit", "disable_events"),
        *("election", "hello", "memdump", "memsample", "objgraph"),
    ],
)
def test_an_order_is_refused(method: str) -> None:
    assert reason(command(method=method)) is Reason.NOT_OFFERED


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[" * 9_000,
        b'{"body": 7}',
        b'{"body": "?"}',
        command(),
        command(method=["ping"]),
        command(method="ping", destination=7),
        command(method="ping", destination=[7]),
        command(method="ping", arguments=["x"]),
        command(method="ping", reply_to="x"),
        command(method="ping", reply_to={"exchange": []}),
        command(method="ping", ticket=7),
        command(method="query_task", arguments={"ids": 7}),
    ],
)
def test_a_command_that_cannot_be_read_is_refused(raw: bytes) -> None:
    assert reason(raw) is Reason.MALFORMED


def test_a_long_command_is_refused() -> None:
    assert reason(command(method="ping", arguments={"x": "y" * 99_999})) is Reason.TOO_LONG
