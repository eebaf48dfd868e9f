"""Downloads can be looked at, cut and resumed."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from api.client import ApiError, Client
from tests.api.server.conftest import FakeWorkers
from tests.api.server.installation import Tenant

MIB = 2**20
DATA = os.urandom(20 * MIB)


@pytest.fixture(scope="module")
def data() -> bytes:
    """More than two parts of the object store."""
    return DATA


def test_a_head_tells_length_and_tag_without_a_body(tenant: Tenant) -> None:
    file_id = tenant.upload(b"0123456789")
    answer = tenant.http.head(f"/v1/files/{file_id}/content")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "10"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["etag"] == f'"{hashlib.sha256(b"0123456789").hexdigest()}"'


@pytest.mark.parametrize(
    ("header", "expected", "content_range"),
    [
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-1", b"9", "bytes 9-9/10"),
    ],
)
def test_a_range_of_a_file(
    tenant: Tenant, header: str, expected: bytes, content_range: str
) -> None:
    path = f"/v1/files/{tenant.upload(b'0123456789')}/content"
    answer = tenant.http.get(path, headers={"range": header})
    assert (answer.status_code, answer.content) == (206, expected)
    assert answer.headers["content-range"] == content_range


def test_a_range_behind_the_end_is_refused_with_the_length(tenant: Tenant) -> None:
    path = f"/v1/files/{tenant.upload(b'0123456789')}/content"
    answer = tenant.http.get(path, headers={"range": "bytes=10-"})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */10")
    assert answer.json()["error"]["code"] == "range_unsatisfiable"


def test_a_range_over_parts_of_the_store_is_that_of_the_object(tenant: Tenant, data: bytes) -> None:
    path = f"/v1/files/{tenant.upload(data)}/content"
    etag = tenant.http.head(path).headers["etag"]
    first, last = 5 * MIB + 1, 18 * MIB
    answer = tenant.http.get(path, headers={"range": f"bytes={first}-{last}", "if-range": etag})
    assert answer.status_code == 206
    assert answer.content == data[first : last + 1]
    other = tenant.http.get(path, headers={"range": "bytes=1-2", "if-range": '"another"'})
    assert (other.status_code, len(other.content)) == (200, len(data))


def test_an_output_and_its_tag(tenant: Tenant, fake_workers: FakeWorkers) -> None:
    job_id = tenant.submit(output={"format": "jsonl"})
    hands = fake_workers.take(job_id)
    hands.plan([3])
    hands.work(0)
    hands.finish()
    path = f"/v1/jobs/{job_id}/output"
    whole = tenant.http.get(path)
    assert tenant.http.head(path).headers["etag"] == whole.headers["etag"]
    part = tenant.http.get(path, headers={"range": "bytes=-9"})
    assert (part.status_code, part.content) == (206, whole.content[-9:])


@contextmanager
def cutting(port: int, *, after: int, requests: list[bytes]) -> Iterator[str]:
    """A proxy that cuts each connection when this many bytes have come from the API; its URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, socket.create_connection(("127.0.0.1", port)) as server:
                request = client.recv(65536)
                requests.append(request)
                server.sendall(request.replace(b"keep-alive", b"close"))
                left = after
                while left > 0 and (block := server.recv(min(left, 65536))):
                    client.sendall(block)
                    left -= len(block)

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()


def test_the_client_resumes_a_download_that_breaks_however_often(
    tenant: Tenant, tmp_path: Path, data: bytes
) -> None:
    file_id = tenant.upload(data)
    requests: list[bytes] = []
    seen: list[tuple[int, int]] = []
    target = tmp_path / "corpus"
    with (
        cutting(tenant.installation.port, after=6 * MIB, requests=requests) as url,
        Client(url, tenant.key) as client,
    ):
        client.download_file(file_id, target, progress=lambda *done: seen.append(done))
    assert target.read_bytes() == data
    assert list(tmp_path.iterdir()) == [target]
    assert len(requests) == 4
    assert [b"range: bytes=" in request.lower() for request in requests] == [False] + [True] * 3
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {total for _, total in seen} == {len(data)}


def test_a_download_over_another_object_begins_again(
    tenant: Tenant, tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tenant.upload(data), tenant.upload(data[::-1])
    requests: list[bytes] = []
    with (
        cutting(tenant.installation.port, after=6 * MIB, requests=requests) as url,
        Client(url, tenant.key) as client,
    ):
        really = client._stream
        paths: Iterator[str] = iter([f"/v1/files/{old}/content"])

        def stream(path: str, **options: object) -> object:
            client._http.base_url = url if not requests else tenant.installation.url
            return really(next(paths, path), **options)

        monkeypatch.setattr(client, "_stream", stream)
        client.download_file(new, tmp_path / "corpus")
    assert (tmp_path / "corpus").read_bytes() == data[::-1]


def test_a_download_without_any_answer_ends_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        Client("http://127.0.0.1:9", "key", patience_seconds=0.1) as client,
        pytest.raises(ApiError, match="does not answer"),
    ):
        client.download_file("file-1", tmp_path / "corpus")
    assert list(tmp_path.iterdir()) == []
