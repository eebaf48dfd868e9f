"""One client costs the others nothing: time limits, limits per key, room for new connections.

Promise P12. The installation has small limits; no test asserts how long anything takes.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest

from tests.api.server import wire
from tests.api.server.installation import Installation, Tenant, new_tenant, start_installation
from tests.support.servers import Databases
from tests.support.waiting import wait_until

CONNECTIONS = 60


@pytest.fixture(scope="module")
def strict(
    fresh_database: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    running = start_installation(
        fresh_database(),
        tmp_path_factory.mktemp("strict"),
        NIGHTSHIFT_API_CONNECTIONS=str(CONNECTIONS),
        NIGHTSHIFT_API_HEAD_SECONDS="1",
        NIGHTSHIFT_API_STALL_SECONDS="1",
        NIGHTSHIFT_UPLOADS_PER_KEY="2",
        NIGHTSHIFT_STREAMS_PER_KEY="2",
        NIGHTSHIFT_DOWNLOADS_PER_KEY="1",
        NIGHTSHIFT_VERIFICATIONS_PER_KEY="1",
    )
    yield running
    running.stop()


@pytest.fixture
def client(strict: Installation) -> Iterator[Tenant]:
    with new_tenant(strict) as made:
        yield made


@pytest.fixture
def other(strict: Installation) -> Iterator[Tenant]:
    with new_tenant(strict) as made:
        yield made


def test_half_a_head_is_ended_with_a_reason(client: Tenant) -> None:
    answer = wire.ask(client.installation, b"GET /v1/jobs HTTP/1.1\r\nHost: h\r\n")
    assert answer.status == 408
    assert answer.error["code"] == "head_timeout"


def test_a_head_that_comes_byte_by_byte_gets_no_more_time(client: Tenant) -> None:
    with wire.connected(client.installation) as connection:
        for byte in b"GET /v1/jobs HTTP/1.1\r\nHost: h\r\nX: " + b"y" * 100:
            wire.send(connection, bytes([byte]))
            time.sleep(0.03)
        assert wire.read(connection).status in (408, 0)


def test_a_connection_that_sends_nothing_is_closed(client: Tenant) -> None:
    with wire.connected(client.installation) as connection:
        assert connection.recv(1) == b""


@pytest.mark.parametrize("route", ["/v1/jobs", "/v1/files"])
def test_a_body_that_stalls_is_ended_with_a_reason(client: Tenant, route: str) -> None:
    fields = "Content-Length: 1000", "Content-Type: multipart/form-data; boundary=B"
    head = wire.head(f"POST {route}", *fields, key=client.key)
    answer = wire.ask(client.installation, head + b"--B\r\n")
    assert answer.status == 408
    assert answer.error["code"] == "body_timeout"


def test_an_upload_that_stalls_leaves_nothing_and_gives_its_place_back(client: Tenant) -> None:
    for _ in range(3):
        assert wire.ask(client.installation, wire.begun_upload(client.key)).status == 408
    client.upload()
    (stored,) = (path for path in client.installation.objects.rglob("*") if path.is_file())
    stored.unlink()


def test_an_upload_that_is_slow_but_goes_on_is_kept(client: Tenant) -> None:
    def body() -> Iterator[bytes]:
        yield b'--B\r\nContent-Disposition: form-data; name="file"; filename="slow"\r\n\r\n'
        for _ in range(15):
            time.sleep(0.2)
            yield b"x" * 200
        yield b"\r\n--B--\r\n"

    kind = {"content-type": "multipart/form-data; boundary=B"}
    answer = client.http.post("/v1/files", content=body(), headers=kind)
    assert answer.json()["bytes"] == 3000


def test_half_sent_requests_keep_no_one_out(client: Tenant) -> None:
    """Five times as many as the process may have connections, and none ends by its time limit."""
    with ExitStack() as held:
        for _ in range(5 * CONNECTIONS):
            connection = held.enter_context(wire.connected(client.installation))
            wire.send(connection, b"GET /v1/jobs HTTP/1.1\r\nHost: h\r\n")
        for _ in range(5):
            with httpx.Client(headers=client.http.headers) as fresh:
                assert fresh.get(f"{client.installation.url}/v1/jobs").status_code == 200


def test_uploads_of_one_key_are_limited_and_those_of_others_go_on(
    client: Tenant, other: Tenant
) -> None:
    with ExitStack() as held:
        for _ in range(2):
            connection = held.enter_context(wire.connected(client.installation))
            wire.send(connection, wire.begun_upload(client.key))
            held.enter_context(wire.fed(connection))
        wait_until(lambda: _upload(client) == 429)
        refused = client.http.post("/v1/files", files={"file": ("a", b"x")})
        assert refused.headers["retry-after"] == "5"
        assert refused.json()["error"]["code"] == "too_many_requests"
        assert "2 uploads may be under way" in refused.json()["error"]["message"]
        other.upload()
        assert client.http.get("/v1/jobs").status_code == 200
    wait_until(lambda: _upload(client) == 200)


def test_streams_of_one_key_are_limited_and_those_of_others_go_on(
    client: Tenant, other: Tenant
) -> None:
    job_id, others_job = client.submit(), other.submit()
    path = f"/v1/jobs/{job_id}/events"
    with ExitStack() as held:
        for _ in range(2):
            assert held.enter_context(client.http.stream("GET", path)).status_code == 200
        assert client.http.get(path).status_code == 429
        with other.http.stream("GET", f"/v1/jobs/{others_job}/events") as answer:
            assert answer.status_code == 200


def test_verifications_of_one_key_are_limited_and_those_of_others_go_on(
    client: Tenant, other: Tenant
) -> None:
    corpus = b'{"text": "one"}\n' * 100_000
    jobs = [each.submit(corpus={"file": each.upload(corpus)}) for each in (client, other)]
    with ThreadPoolExecutor(4) as pool:
        path = f"/v1/jobs/{jobs[0]}/verification"
        asked = [pool.submit(client.http.get, path) for _ in range(4)]
        assert other.http.get(f"/v1/jobs/{jobs[1]}/verification").status_code == 200
    found = sorted(each.result().status_code for each in asked)
    assert found[0] == 200
    assert set(found[1:]) <= {200, 429}
    assert 429 in found


def test_an_answer_that_is_not_taken_ends_and_gives_its_place_back(client: Tenant) -> None:
    file_id = client.upload(bytes(24 * 2**20))
    begun = len(client.installation.log)
    with wire.connected(client.installation) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**14)
        wire.send(connection, wire.head(f"GET /v1/files/{file_id}/content", key=client.key))
        wait_until(lambda: "took nothing of its answer" in client.installation.log[begun:])
    answer = client.http.get(f"/v1/files/{file_id}/content")
    assert len(answer.content) == 24 * 2**20


@pytest.mark.parametrize("key", ["", "ns-wrong"])
@pytest.mark.parametrize("route", ["/v1/jobs", "/v1/files", "/v1/no-such-route"])
def test_the_key_is_checked_before_a_byte_of_the_body_is_there(
    client: Tenant, route: str, key: str
) -> None:
    head = wire.head(f"POST {route}", "Content-Length: 1000000", key=key)
    assert wire.ask(client.installation, head).status == 401


def test_a_length_over_the_limit_is_refused_before_the_body_is_there(client: Tenant) -> None:
    head = wire.head("POST /v1/jobs", "Content-Length: 100000000", key=client.key)
    assert wire.ask(client.installation, head).status == 413


def test_a_body_in_chunks_of_one_byte_is_read_and_holds_up_no_one(client: Tenant) -> None:
    fields = "Transfer-Encoding: chunked", "Content-Type: multipart/form-data; boundary=B"
    body = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    body += b"x" * 30_000 + b"\r\n--B--\r\n"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    with wire.connected(client.installation) as connection:
        wire.send(connection, wire.head("POST /v1/files", *fields, key=client.key) + chunks)
        assert client.http.get("/v1/jobs").status_code == 200
        answer = wire.read(connection)
    assert answer.status == 200
    assert b'"bytes":30000' in answer.body


def _upload(tenant: Tenant) -> int:
    return tenant.http.post("/v1/files", files={"file": ("a", b"x")}).status_code
