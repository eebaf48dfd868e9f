"""Uploads flow into the object store: whole, or not at all, in little memory."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.api.server.installation import Installation, Tenant, new_tenant, start_installation
from tests.support.servers import Databases
from tests.support.waiting import wait_until

LIMIT = 3 * 2**20
MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def narrow(
    fresh_database: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """An installation whose files may have three MiB."""
    running = start_installation(
        fresh_database(),
        tmp_path_factory.mktemp("narrow"),
        NIGHTSHIFT_MAX_UPLOAD_BYTES=str(LIMIT),
    )
    yield running
    running.stop()


@pytest.fixture
def limited(narrow: Installation) -> Iterator[Tenant]:
    with new_tenant(narrow) as made:
        yield made


def _objects(tenant: Tenant) -> list[Path]:
    folder = tenant.installation.objects
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_file_comes_back_as_it_was_sent(tenant: Tenant) -> None:
    data = bytes(range(256)) * 20_000
    answer = tenant.http.post("/v1/files", files={"file": ("a.csv", data)}).json()
    assert answer["bytes"] == len(data)
    assert answer["nightshift"]["sha256"] == hashlib.sha256(data).hexdigest()
    content = tenant.http.get(f"/v1/files/{answer['id']}/content")
    assert content.content == data
    assert content.headers["content-disposition"] == "attachment; filename*=UTF-8''a.csv"


def test_the_answer_has_the_official_shape(tenant: Tenant) -> None:
    answer = tenant.http.post(
        "/v1/files", files={"file": ("a.jsonl", b"x")}, data={"purpose": "user_data"}
    ).json()
    assert answer["object"] == "file"
    assert answer["status"] == "processed"
    assert answer["purpose"] == "user_data"
    assert isinstance(answer["created_at"], int)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("corpus.csv", "corpus.csv"),
        ("../../etc/passwd", "passwd"),
        ("C:\\data\\corpus.csv", "corpus.csv"),
        ("语料.jsonl", "语料.jsonl"),
        ("it's; a.csv", "it's; a.csv"),
    ],
)
def test_the_name_is_kept_without_folders(tenant: Tenant, sent: str, kept: str) -> None:
    answer = tenant.http.post("/v1/files", files={"file": (sent, b"x")})
    assert answer.json()["filename"] == kept


def test_the_purpose_may_follow_the_file(tenant: Tenant) -> None:
    body = (
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nhi\r\n'
        b'--B\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--B--\r\n'
    )
    answer = tenant.http.post(
        "/v1/files", content=body, headers={"content-type": "multipart/form-data; boundary=B"}
    )
    assert answer.json()["bytes"] == 2


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"no boundary at all", "bad_multipart"),
        (b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\ncut', None),
        (b'--B\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--B--\r\n', None),
        (b'--B\r\nContent-Disposition: form-data; name="fiel"\r\n\r\nx\r\n--B--\r\n', None),
        (b"", "upload_incomplete"),
    ],
)
def test_a_malformed_body_leaves_nothing(limited: Tenant, body: bytes, code: str | None) -> None:
    before = _objects(limited)
    answer = limited.http.post(
        "/v1/files", content=body, headers={"content-type": "multipart/form-data; boundary=B"}
    )
    assert answer.status_code == 400
    assert code in (None, answer.json()["error"]["code"])
    assert _objects(limited) == before
    assert limited.http.get("/v1/files").json()["data"] == []


def test_a_body_that_is_not_multipart_is_refused(tenant: Tenant) -> None:
    answer = tenant.http.post("/v1/files", json={"file": "x"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "not_multipart"


def test_a_file_of_the_largest_size_is_kept(limited: Tenant) -> None:
    answer = limited.http.post("/v1/files", files={"file": ("a.bin", bytes(LIMIT))})
    assert answer.json()["bytes"] == LIMIT


def test_a_file_with_one_byte_more_is_refused_and_leaves_nothing(limited: Tenant) -> None:
    before = _objects(limited)
    answer = limited.http.post("/v1/files", files={"file": ("a.bin", bytes(LIMIT + 1))})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"
    assert "3,145,728" in answer.json()["error"]["message"]
    assert _objects(limited) == before


def test_a_huge_file_is_refused_before_it_is_read(limited: Tenant) -> None:
    answer = limited.http.post("/v1/files", files={"file": ("a.bin", bytes(40 * MEBIBYTE))})
    assert answer.status_code == 413


def test_a_file_without_an_announced_length_is_counted_on_the_way(limited: Tenant) -> None:
    before = _objects(limited)

    def body() -> Iterator[bytes]:
        yield b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(5):
            yield bytes(MEBIBYTE)
        yield b"\r\n--B--\r\n"

    answer = limited.http.post(
        "/v1/files", content=body(), headers={"content-type": "multipart/form-data; boundary=B"}
    )
    assert answer.status_code == 413
    assert _objects(limited) == before


def test_a_client_that_hangs_up_leaves_nothing(limited: Tenant) -> None:
    before, said = _objects(limited), len(limited.installation.log)
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {limited.key}\r\n"
        "Content-Type: multipart/form-data; boundary=B\r\nContent-Length: 3000000\r\n\r\n"
        '--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    ).encode()
    with socket.create_connection(("127.0.0.1", limited.installation.port)) as wire:
        wire.sendall(head + bytes(2 * MEBIBYTE))
    wait_until(lambda: '"path": "/v1/files", "status": 400' in limited.installation.log[said:])
    assert _objects(limited) == before
    assert limited.http.get("/v1/files").json()["data"] == []


def test_uploads_at_once_do_not_hold_up_other_requests(tenant: Tenant) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def body() -> Iterator[bytes]:
        yield b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        begun.set()
        go_on.wait(20)
        yield b"\r\n--B--\r\n"

    def send() -> None:
        tenant.http.post(
            "/v1/files",
            content=body(),
            headers={"content-type": "multipart/form-data; boundary=B"},
        )

    senders = [threading.Thread(target=send) for _ in range(16)]
    for sender in senders:
        sender.start()
    assert begun.wait(10)
    assert tenant.http.get("/v1/jobs").elapsed.total_seconds() < 2
    go_on.set()
    for sender in senders:
        sender.join(20)
    page = tenant.http.get("/v1/files", params={"limit": 100}).json()
    assert len(page["data"]) == len(senders)


def test_an_upload_of_200_mib_takes_less_than_50_mib_of_memory(tenant: Tenant) -> None:
    tenant.upload()
    before, peak, ended = tenant.installation.memory(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.01):
            peak = max(peak, tenant.installation.memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    answer = tenant.http.post("/v1/files", content=_big(200), headers=_BIG_HEADERS, timeout=120)
    ended.set()
    watcher.join()
    assert answer.json()["bytes"] == 200 * MEBIBYTE
    assert peak - before < 50 * MEBIBYTE
    (tenant.installation.objects / "files" / answer.json()["id"]).unlink()


_BIG_HEADERS = {"content-type": "multipart/form-data; boundary=B"}


def _big(mebibytes: int) -> Iterator[bytes]:
    yield b'--B\r\nContent-Disposition: form-data; name="file"; filename="big.bin"\r\n\r\n'
    block = bytes(MEBIBYTE)
    for _ in range(mebibytes):
        yield block
    yield b"\r\n--B--\r\n"


def test_files_are_listed_in_pages_newest_first(tenant: Tenant) -> None:
    uploaded = [tenant.upload() for _ in range(3)]
    page = tenant.http.get("/v1/files", params={"limit": 2}).json()
    rest = tenant.http.get("/v1/files", params={"limit": 2, "after": page["last_id"]}).json()
    assert [file["id"] for file in page["data"] + rest["data"]] == uploaded[::-1]
    assert (page["has_more"], rest["has_more"]) == (True, False)


def test_another_projects_file_looks_like_none(tenant: Tenant, stranger: Tenant) -> None:
    file_id = tenant.upload()
    for path in (f"/v1/files/{file_id}", f"/v1/files/{file_id}/content"):
        assert stranger.http.get(path).status_code == 404
    assert stranger.http.get("/v1/files").json()["data"] == []


def test_an_upload_without_a_key_is_refused(installation: Installation) -> None:
    answer = httpx.post(f"{installation.url}/v1/files", files={"file": ("a", b"x")})
    assert answer.status_code == 401
