"""What a worker reads out of a message: what control signed, or nothing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import bad_messages
from tests.support.bad_messages import BadMessage
from workers.broker import envelope
from workers.broker.envelope import Hint, Reason, Refused

KEY = b"k" * 32
QUEUE = "plan"
GENUINE = bad_messages.signed("plan", "job_1", queue=QUEUE, key=KEY)

TEXT = st.text(st.characters(exclude_categories=("C", "Z")), max_size=40)
HINTS = st.one_of(
    st.builds(
        Hint,
        TEXT,
        st.just("chunk"),
        st.uuids().map(str),
        st.tuples(st.integers(0, 2**63 - 1)),
        TEXT,
    ),
    st.builds(
        Hint,
        TEXT,
        st.just("rank"),
        st.uuids().map(str),
        st.tuples(TEXT, st.integers(0, 10), TEXT),
        TEXT,
    ),
)


def reason(raw: bytes, *, queue: str = QUEUE, key: bytes = KEY) -> Reason | None:
    try:
        envelope.read(raw, queue=queue, key=key)
    except Refused as refused:
        return refused.reason
    return None


@given(HINTS)
def test_what_was_signed_is_read(hint: Hint) -> None:
    signature = envelope.sign(hint, key=KEY)
    raw = json.dumps(envelope.celery_message(hint, signature=signature, tag="t")).encode()
    assert envelope.read(raw, queue=hint.queue, key=KEY) == (hint, signature)


@pytest.mark.parametrize("bad", list(bad_messages.of(GENUINE)), ids=lambda bad: bad.name)
def test_a_bad_message_is_refused_or_says_only_what_control_said(bad: BadMessage) -> None:
    if bad.refused:
        assert reason(bad.raw) is not None
        return
    hint, _ = envelope.read(bad.raw, queue=QUEUE, key=KEY)
    assert hint == envelope.read(GENUINE, queue=QUEUE, key=KEY)[0]


def test_a_message_of_another_key_or_queue_is_refused() -> None:
    assert reason(GENUINE) is None
    assert reason(GENUINE, key=b"other") is Reason.BAD_SIGNATURE
    assert reason(GENUINE, queue="pool.cpu") is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("field", ["task", "id", "argsrepr"])
def test_every_field_that_is_read_is_signed(field: str) -> None:
    other = {
        "task": "finalize",
        "id": "00000000-0000-4000-8000-000000000000",
        "argsrepr": "other words",
    }
    message = json.loads(GENUINE)
    message["headers"][field] = other[field]
    assert reason(json.dumps(message).encode()) is Reason.BAD_SIGNATURE


@given(st.binary(max_size=300), st.integers(0, len(GENUINE)))
def test_no_bytes_raise_anything_else(noise: bytes, place: int) -> None:
    reason(noise)
    reason(GENUINE[:place] + noise + GENUINE[place:])
