"""Requests that no client sends by mistake: each is refused with a reason, and no one else waits.

Promises P4 and P12. Nothing here may reach the log as an unexpected error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.api.server import wire
from tests.api.server.installation import Installation, Tenant

GET = "GET /v1/jobs HTTP/1.1\r\n"
HOST = "Host: h\r\n"
FIELD = "X: y\r\n"

HEADS = {
    "bare LF after every line": "GET /v1/jobs HTTP/1.1\nHost: h\n\n",
    "bare LF after one field": f"{GET}Host: h\nX: y\r\n\r\n",
    "bare LF before the end": f"{GET}{HOST}X: y\n\r\n",
    "bare CR in a field": f"{GET}{HOST}X: a\rb\r\n\r\n",
    "a folded field": f"{GET}{HOST}X: a\r\n b\r\n\r\n",
    "a folded first field": f"{GET}\tHost: h\r\n\r\n",
    "length and chunked": f"POST /v1/jobs HTTP/1.1\r\n{HOST}Content-Length: 5\r\n"
    "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": f"POST /v1/jobs HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n"
    "Content-Length: 5\r\n\r\n0\r\n\r\n",
    "the same length twice": f"{GET}{HOST}Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "two lengths": f"{GET}{HOST}Content-Length: 0\r\nContent-Length: 5\r\n\r\n",
    "a list of lengths": f"{GET}{HOST}Content-Length: 0, 0\r\n\r\n",
    "a signed length": f"{GET}{HOST}Content-Length: +5\r\n\r\n",
    "a negative length": f"{GET}{HOST}Content-Length: -1\r\n\r\n",
    "a hexadecimal length": f"{GET}{HOST}Content-Length: 0x5\r\n\r\n",
    "a length with an underscore": f"{GET}{HOST}Content-Length: 1_0\r\n\r\n",
    "a length of 30 digits": f"{GET}{HOST}Content-Length: {'9' * 30}\r\n\r\n",
    "an empty length": f"{GET}{HOST}Content-Length:\r\n\r\n",
    "an unknown transfer coding": f"{GET}{HOST}Transfer-Encoding: gzip\r\n\r\n",
    "identity as a transfer coding": f"{GET}{HOST}Transfer-Encoding: identity\r\n\r\n",
    "chunked under another name": f"{GET}{HOST}Transfer-Encoding: xchunked\r\n\r\n",
    "chunked twice": f"{GET}{HOST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunked twice in a list": f"{GET}{HOST}Transfer-Encoding: chunked, chunked\r\n\r\n",
    "chunked in HTTP/1.0": f"GET / HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n",
    "a space before the colon": f"{GET}{HOST}Content-Length : 5\r\n\r\n",
    "NUL in a value": f"{GET}{HOST}X: a\0b\r\n\r\n",
    "NUL in a name": f"{GET}{HOST}X\0: a\r\n\r\n",
    "ESC in a value": f"{GET}{HOST}X: \x1b[31m\r\n\r\n",
    "DEL in a value": f"{GET}{HOST}X: \x7f\r\n\r\n",
    "NUL in the target": f"GET /v1/\0jobs HTTP/1.1\r\n{HOST}\r\n",
    "a space in the target": f"GET /v1/ jobs HTTP/1.1\r\n{HOST}\r\n",
    "no version": "GET /v1/jobs\r\n\r\n",
    "HTTP/2.0": f"GET / HTTP/2.0\r\n{HOST}\r\n",
    "HTTP/1.9": f"GET / HTTP/1.9\r\n{HOST}\r\n",
    "the preface of HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version in small letters": f"GET / http/1.1\r\n{HOST}\r\n",
    "no host": "GET / HTTP/1.1\r\n\r\n",
    "two hosts": f"GET / HTTP/1.1\r\n{HOST}{HOST}\r\n",
    "no method": f" / HTTP/1.1\r\n{HOST}\r\n",
    "a field without a name": f"{GET}{HOST}: a\r\n\r\n",
    "a field without a colon": f"{GET}{HOST}X\r\n\r\n",
    "empty lines first": f"\r\n\r\n{GET}{HOST}\r\n",
    "101 fields": f"{GET}{HOST}{FIELD * 101}\r\n",
    "a field of 64 KiB": f"{GET}{HOST}X: {'y' * 2**16}\r\n\r\n",
    "a field of 64 KiB without an end": f"{GET}{HOST}X: {'y' * 2**16}",
    "a target of 64 KiB": f"GET /{'y' * 2**16} HTTP/1.1\r\n{HOST}\r\n",
    "letters": "hello, is anybody there?\r\n\r\n",
    "a TLS handshake": "\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + "x" * 600,
}


@pytest.mark.parametrize("request_text", HEADS.values(), ids=HEADS)
def test_a_head_that_is_not_http_is_refused(tenant: Tenant, request_text: str) -> None:
    with wire.connected(tenant.installation) as connection:
        wire.send(connection, request_text.encode("latin-1"))
        assert tenant.http.get("/v1/jobs").status_code == 200
        answer = wire.read(connection)
    assert answer.status in (400, 431)
    assert answer.error["message"]
    assert answer.headers["connection"] == "close"


CHUNKS = {
    "a size that is no number": "zz\r\n",
    "a negative size": "-1\r\n",
    "a size of 30 digits": f"{'f' * 30}\r\n",
    "a chunk longer than its size": "2\r\nabcd\r\n0\r\n\r\n",
    "a bare LF after a size": "2\nab\r\n0\r\n\r\n",
    "an extension of 64 KiB": f"2;{'x' * 2**16}",
    "an extension with a line break": "2;a\nb\r\nab\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("route", ["/v1/jobs", "/v1/files"])
@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
def test_a_chunked_body_that_is_none_is_refused(tenant: Tenant, route: str, chunks: str) -> None:
    fields = "Transfer-Encoding: chunked", "Content-Type: multipart/form-data; boundary=B"
    with wire.connected(tenant.installation) as connection:
        head = wire.head(f"POST {route}", *fields, key=tenant.key)
        wire.send(connection, head + chunks.encode())
        assert tenant.http.get("/v1/jobs").status_code == 200
        answer = wire.read(connection)
    assert answer.status == 400
    assert answer.error["code"] == "bad_http"


TARGETS = {
    "NUL in a reference": ("GET /v1/models/a%00b", 404),
    "NUL in a name": ("GET /v1/models/a%00b/versions", 404),
    "NUL in the name of a version to delete": ("DELETE /v1/models/a%00b/versions/1", 404),
    "NUL in the name of a file": ("GET /v1/models/a/versions/1/files/b%00", 404),
    "NUL in an alias": ("GET /v1/models/a/aliases/b%00", 404),
    "NUL in an alias to delete": ("DELETE /v1/models/a/aliases/b%00", 404),
    "NUL in the name of promotions": ("GET /v1/models/a%00/promotions", 404),
    "NUL in an id": ("GET /v1/jobs/a%00b", 404),
    "a line break in a name": ("GET /v1/models/a%0ab/versions", 404),
    "an escape in a file id": ("GET /v1/files/%1b%5b31m", 404),
    "a C1 control in a name": ("GET /v1/models/a%c2%85/versions", 404),
    "half a surrogate in a name": ("GET /v1/models/%ed%a0%80/versions", 404),
    "bytes that are not UTF-8": ("GET /v1/models/%c0%af/versions", 404),
    "a name of 8,000 letters": (f"GET /v1/models/{'n' * 8000}/aliases/{'a' * 4000}", 404),
    "a path out of the store": ("GET /v1/models/a/versions/1/files/..%2f..%2fetc/passwd", 404),
    "a number of 5,000 digits": (f"GET /v1/models/a/versions/{'9' * 5000}/files/b", 404),
    "NUL in a query": ("GET /v1/jobs?after=%00", 400),
    "NUL in the name of a query": ("GET /v1/jobs?a%00=1", 400),
    "a limit of 5,000 digits": (f"GET /v1/jobs?limit={'9' * 5000}", 400),
    "a limit that is infinite": ("GET /v1/jobs?limit=1e400", 400),
    "a state that is none": ("GET /v1/jobs?state=%ff", 400),
    "a method that is none": ("BREW /v1/jobs", 405),
    "a trace": ("TRACE /v1/jobs", 405),
    "a tunnel": ("CONNECT example.org:443", 404),
    "a star": ("OPTIONS *", 404),
}


@pytest.mark.parametrize(("target", "status"), TARGETS.values(), ids=TARGETS)
def test_a_target_that_cannot_be_is_refused(tenant: Tenant, target: str, status: int) -> None:
    answer = wire.ask(tenant.installation, wire.head(target, key=tenant.key))
    assert answer.status == status
    assert answer.error["message"]


BODIES = {
    "900 arrays in a recipe": b'{"train": {"accelerate": ' + b"[" * 900 + b"]" * 900 + b"}}",
    "a hundred thousand arrays": b"[" * 10**5,
    "a hundred thousand objects": b'{"a":' * 10**5,
    "1e400": b'{"max_failed": 1e400}',
    "a number of 5,000 digits": b'{"priority": ' + b"9" * 5000 + b"}",
    "a number of 30 digits": b'{"priority": ' + b"9" * 30 + b"}",
    "NaN": b'{"max_failed": NaN}',
    "minus infinity": b'{"max_failed": -Infinity}',
    "half a surrogate": b'{"name": "a\\ud800"}',
    "half a surrogate as a field": b'{"a\\udfff": 1}',
    "half a surrogate in bytes": b'{"name": "\xed\xa0\x80"}',
    "NUL": b'{"name": "a\\u0000b"}',
    "NUL in a reference": b'{"model": "a\\u0000b", "corpus": {"file": "f"}}',
    "NUL as a field": b'{"pipeline": {"parameters": {"a\\u0000": 1}}}',
    "NUL between the fields": b'{"name": 1,\0"a": 2}',
    "UTF-16": '{"model": "m"}'.encode("utf-16"),
    "Latin-1": '{"model": "é"}'.encode("latin-1"),
    "null": b"null",
    "a list": b"[1]",
    "a text": b'"spec"',
    "half a text": b'{"model": "m',
    "half a megabyte of numbers": b"[" + b"1," * 2**18 + b"1]",
    "one byte too many": b" " * (2**20 + 1),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_json_body_that_cannot_be_is_refused(tenant: Tenant, body: bytes) -> None:
    request = wire.with_body("POST /v1/jobs", body, key=tenant.key)
    answer = wire.ask(tenant.installation, request)
    assert answer.status in (400, 413)
    assert answer.error["code"] in ("bad_spec", "too_large")


@pytest.mark.parametrize(
    "version", [b"1e400", b"1" + b"0" * 5000, b"NaN", b'"\\u0000"', b"[" * 900 + b"]" * 900]
)
def test_every_json_body_has_the_same_limits(tenant: Tenant, version: bytes) -> None:
    body = b'{"version": ' + version + b"}"
    request = wire.with_body("PUT /v1/models/a/aliases/b", body, key=tenant.key)
    assert wire.ask(tenant.installation, request).status == 400


def test_json_that_is_not_named_so_has_the_same_limits(tenant: Tenant) -> None:
    deep = b'{"train": {"accelerate": ' + b"[" * 900 + b"]" * 900 + b"}}"
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/vnd.a+json"):
        request = wire.with_body("POST /v1/jobs", deep, key=tenant.key, kind=kind)
        assert wire.ask(tenant.installation, request).status == 400


@pytest.mark.parametrize("value", ["a\x01", "a\x7f", "x" * 256])
def test_an_idempotency_key_that_cannot_be_is_refused(tenant: Tenant, value: str) -> None:
    body = json.dumps(tenant.spec()).encode()
    fields = f"Idempotency-Key: {value}", f"Content-Length: {len(body)}"
    head = wire.head("POST /v1/jobs", "Content-Type: application/json", *fields, key=tenant.key)
    assert wire.ask(tenant.installation, head + body).status == 400


def _part(disposition: str, data: str = "x") -> str:
    return f"--B\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{data}\r\n"


PARTS = {
    "a file without a name before another": _part('name="file"')
    + _part('name="file"; filename="b"'),
    "a file with an empty name": _part('name="file"; filename=""'),
    "a file whose name is a control character": _part('name="file"; filename="\x01"'),
    "two files": _part('name="file"; filename="a"') * 2,
    "two purposes": _part('name="purpose"', "batch") * 2 + _part('name="file"; filename="a"'),
    "a part without a disposition": "--B\r\nX: y\r\n\r\nx\r\n" + _part('name="file"; filename="a"'),
    "a part without fields": "--B\r\n\r\nx\r\n" + _part('name="file"; filename="a"'),
    "an unknown field": _part('name="other"') + _part('name="file"; filename="a"'),
    "a field of a megabyte": f"--B\r\nX: {'y' * 2**20}\r\n\r\nx\r\n",
    "a thousand fields": f"--B\r\n{FIELD * 1000}\r\nx\r\n",
    "a purpose of a megabyte": _part('name="purpose"', "x" * 2**20),
    "a purpose with NUL": _part('name="purpose"', "a\0") + _part('name="file"; filename="a"'),
    "no boundary": "x" * 100,
}


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_a_multipart_body_that_cannot_be_is_refused(tenant: Tenant, parts: str) -> None:
    kind = "multipart/form-data; boundary=B"
    body = f"{parts}--B--\r\n".encode("latin-1")
    request = wire.with_body("POST /v1/files", body, key=tenant.key, kind=kind)
    answer = wire.ask(tenant.installation, request)
    assert answer.status == 400
    assert answer.error["message"]
    assert tenant.http.get("/v1/files").json()["data"] == []


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", f"multipart/form-data; boundary={'b' * 999}"]
)
def test_a_boundary_that_cannot_be_is_refused(tenant: Tenant, kind: str) -> None:
    request = wire.with_body("POST /v1/files", b"x", key=tenant.key, kind=kind)
    assert wire.ask(tenant.installation, request).status == 400


def test_a_second_request_behind_a_short_length_is_read_as_one_of_its_own(tenant: Tenant) -> None:
    """What follows a body is a request, and is judged as one."""
    whole = wire.with_body("POST /v1/jobs", b"{}", key=tenant.key)
    with wire.connected(tenant.installation) as connection:
        wire.send(connection, whole + b"smuggled\r\n\r\n")
        answers = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answers.count(b"HTTP/1.1 400 ") == 2
    assert b'"bad_http"' in answers.rpartition(b"HTTP/1.1 400 ")[2]


@pytest.fixture(autouse=True, scope="module")
def nothing_unexpected(installation: Installation) -> Iterator[None]:
    """No request of this file was an unexpected error."""
    begun = len(installation.log)
    yield
    assert "unexpected error" not in installation.log[begun:]
    assert "Traceback" not in installation.log[begun:]
