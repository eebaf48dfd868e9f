"""Messages that must harm no worker, as someone with the broker's password can write them.

Each is made from a message that control has signed: an attacker can read those and change them.
"""

from __future__ import annotations

import base64
import bz2
import json
import lzma
import pickle
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from workers.broker import envelope
from workers.broker.envelope import Hint

DEEP = 10_000
HUGE = 100 * 2**20
MISSING = object()
ODD: tuple[object, ...] = (None, 7, [], {}, "", "\u00e9" * 64)
"""Values of other types, and texts that are none of ours."""

UNREAD: Mapping[str, tuple[object, ...]] = {
    "timelimit": (["a", "b"], 7, "soon", [1], {}),
    "eta": ("never", 7, [], "0000-00-00", "9999-12-31T23:59:59"),
    "expires": ("never", 7, [], "1970-01-01T00:00:00"),
    "retries": ("many", -1, []),
    "root_id": ([], {}, 7),
    "parent_id": ([],),
    "group": ([],),
    "shadow": ([], 7),
    "stamped_headers": (7, ["x"]),
    "stamps": (7,),
    "ignore_result": ("no",),
    "lang": ([],),
    "redelivered": ([],),
}
"""Headers on which Celery acts, with values on which it stumbles."""


@dataclass(frozen=True)
class BadMessage:
    """``refused``: by a reader that checks the signature; the others say only what control said."""

    name: str
    raw: bytes
    refused: bool = True


def signed(task: str, *arguments: int | str, queue: str, key: bytes) -> bytes:
    """A message as control sends it."""
    hint = Hint(queue, task, "0f3c7e1a-9d24-4b8e-8a51-3f6f0c2d9b77", arguments, "words")
    signature = envelope.sign(hint, key=key)
    return json.dumps(envelope.celery_message(hint, signature=signature, tag="tag")).encode()


def of(genuine: bytes) -> Iterator[BadMessage]:
    """Every kind, a hundred megabytes excepted."""
    yield from _not_envelopes()
    yield from _other_bodies(genuine)
    yield from _other_headers(genuine)
    yield from _other_properties(genuine)


def _not_envelopes() -> Iterator[BadMessage]:
    for name, raw in {
        "nothing": b"",
        "no JSON": b"\x00\xff\xfe not JSON",
        "half": b'{"body": "W1td", "headers": {"task": "pl',
        "null": b"null",
        "list": b"[]",
        "number": b"7",
        "string": b'"plan"',
        "empty object": b"{}",
        "NaN": b'{"headers": NaN}',
        "deep lists": b"[" * DEEP + b"]" * DEEP,
        "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
        "deep in a header": b'{"headers":' + b"[" * 7_000 + b"]" * 7_000 + b"}",
        "long number": b'{"headers": ' + b"9" * 10_000 + b"}",
        "lone surrogate": b'{"headers": {"task": "\\ud800"}}',
        "pickle": pickle.dumps({"headers": {}}),
        "a megabyte": b"x" * 2**20,
        "typed value of kombu": b'{"__type__": "datetime", "__value__": "not a date"}',
    }.items():
        yield BadMessage(f"envelope: {name}", raw)


def _other_bodies(genuine: bytes) -> Iterator[BadMessage]:
    for name, body in {
        "null": b"null",
        "list": b"[]",
        "number": b"7",
        "object": b"{}",
        "four items": b"[[], {}, {}, {}]",
        "arguments are an object": b"[{}, {}, {}]",
        "keywords": b'[[], {"chunk_id": 1}, {}]',
        "callbacks": b'[["x"], {}, {"callbacks": [{"task": "plan", "args": []}]}]',
        "no arguments": b"[[], {}, {}]",
        "too many arguments": b"[[1, 2, 3, 4], {}, {}]",
        "wrong argument": b"[[true], {}, {}]",
        "number over 64 bits": b"[[99999999999999999999], {}, {}]",
        "long argument": b'[["' + b"j" * 5_000 + b'"], {}, {}]',
        "deep": b"[" * 5_000 + b"]" * 5_000,
        "no JSON": b"\x80\x04.",
        "pickle": pickle.dumps(([], {}, {})),
    }.items():
        yield _changed(genuine, f"body: {name}", "body", value=_base64(body))
    for value in ODD:
        yield _changed(genuine, f"raw body: {_short(value)}", "body", value=value)
    bomb = b"[" + b" " * 2**20 + b"]"
    for name, packed in {
        "gzip": zlib.compress(bomb),
        "bzip2": bz2.compress(bomb),
        "lzma": lzma.compress(bomb),
    }.items():
        compressed = _changed(genuine, "", "headers", "compression", value=name).raw
        yield _changed(compressed, f"compressed: {name}", "body", value=_base64(packed))


def _other_headers(genuine: bytes) -> Iterator[BadMessage]:
    """Those that the signature covers are refused; the others are not even read."""
    for name in ("task", "id", "argsrepr", envelope.SIGNATURE):
        for value in (*ODD, "x" * 3_000, "celery.chord", "0" * 64, MISSING):
            yield _changed(genuine, f"{name}: {_short(value)}", "headers", name, value=value)
    for value in (*ODD, MISSING):
        yield _changed(genuine, f"headers: {_short(value)}", "headers", value=value)
    yield _changed(genuine, "a long header", "headers", "junk", value="x" * 20_000)
    for name, values in UNREAD.items():
        for value in values:
            full = f"{name}: {_short(value)}"
            yield _changed(genuine, full, "headers", name, value=value, refused=False)


def _other_properties(genuine: bytes) -> Iterator[BadMessage]:
    """None of them is read."""
    for name in ("properties", "content-type", "content-encoding"):
        for value in (*ODD, "application/x-python-serialize", "rot13", MISSING):
            yield _changed(genuine, f"{name}: {_short(value)}", name, value=value, refused=False)
    for name in ("delivery_info", "delivery_tag", "body_encoding", "priority", "reply_to"):
        for value in (*ODD, "x" * 300, MISSING):
            full = f"{name}: {_short(value)}"
            yield _changed(genuine, full, "properties", name, value=value, refused=False)


def _changed(
    genuine: bytes, name: str, *path: str, value: object, refused: bool = True
) -> BadMessage:
    """The message with another value at ``path``, or without it."""
    message = json.loads(genuine)
    place = message
    for key in path[:-1]:
        place = place[key]
    if value is MISSING:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return BadMessage(name, json.dumps(message).encode(), refused)


def _base64(body: bytes) -> str:
    return base64.b64encode(body).decode()


def _short(value: object) -> str:
    return "missing" if value is MISSING else repr(value)[:12]
