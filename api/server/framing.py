"""Which request heads are refused before anything acts on them (RFC 9112).

Whatever two readers of the same bytes could understand in two ways is refused: behind a proxy that
reads it the other way, one client's bytes would become another's request. Pure: bytes in, a reason
out.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from http import HTTPStatus

MAX_HEAD = 2**14
"""Bytes of a request line and its header fields."""

MAX_FIELDS = 100
"""Header fields of one request."""

_END = re.compile(rb"\n\r?\n")
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LENGTH = re.compile(rb"[0-9]{1,19}")
_VERSIONS = (b"HTTP/1.1", b"HTTP/1.0")


@dataclass(frozen=True)
class Refusal:
    """The answer to a request that is not passed on; the connection ends with it."""

    status: HTTPStatus
    code: str
    message: str

    def response(self) -> bytes:
        """The whole answer as it is sent."""
        error = {
            "message": self.message,
            "type": "invalid_request_error",
            "param": None,
            "code": self.code,
        }
        body = json.dumps({"error": error}).encode()
        head = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\n"
            "content-type: application/json\r\n"
            f"content-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        )
        return head.encode() + body


def bad(message: str) -> Refusal:
    """A request that is not HTTP as it must be."""
    return Refusal(HTTPStatus.BAD_REQUEST, "bad_http", message)


TOO_LARGE = Refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "head_too_large",
    f"the request line and the header fields must have at most {MAX_HEAD:,} bytes "
    f"and {MAX_FIELDS} fields",
)


def head_of(received: bytes) -> bytes | None:
    """The request's head at the beginning of these bytes; None while its end is missing."""
    end = _END.search(received)
    return received[: end.end()] if end else None


def refusal(head: bytes) -> Refusal | None:
    """Why a complete head is refused; None where it is not."""
    first, *fields = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    if len(head) > MAX_HEAD or len(fields) > MAX_FIELDS:
        return TOO_LARGE
    version = first.rpartition(b" ")[2]
    return _malformed(head, fields, version=version) or _ambiguous(fields, version=version)


def _malformed(head: bytes, fields: list[bytes], *, version: bytes) -> Refusal | None:
    if _BARE.search(head):
        return bad("every line of the head must end with CR LF")
    if _CONTROL.search(head):
        return bad("the head must hold no NUL and no other control character")
    if any(field[:1] in (b" ", b"\t") for field in fields):
        return bad("a header field must stand on one line")
    if version.startswith(b"HTTP/") and version not in _VERSIONS:
        return bad("this server speaks HTTP/1.1 and HTTP/1.0")
    return None


def _ambiguous(fields: list[bytes], *, version: bytes) -> Refusal | None:
    """Why it is not certain where the body ends."""
    names = Counter(field.partition(b":")[0].strip().lower() for field in fields)
    if names[b"content-length"] > 1:
        return bad("Content-Length must be given once")
    for field in fields:
        name, _, value = field.partition(b":")
        if name.lower() == b"content-length" and not _LENGTH.fullmatch(value.strip(b" \t")):
            return bad("Content-Length must be one number of at most 19 digits")
    if names[b"transfer-encoding"] and names[b"content-length"]:
        return bad("Content-Length and Transfer-Encoding must not be given together")
    if names[b"transfer-encoding"] and version == b"HTTP/1.0":
        return bad("HTTP/1.0 has no Transfer-Encoding")
    return None
