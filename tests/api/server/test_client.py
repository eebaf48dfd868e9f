"""The Python client against the real API, which is killed under it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from api.client import ApiError, Client
from tests.api.server.conftest import FakeWorkers
from tests.api.server.installation import Installation, Tenant
from tests.support.waiting import wait_until


@pytest.fixture
def client(tenant: Tenant) -> Iterator[Client]:
    with Client(tenant.installation.url, tenant.key, patience_seconds=20) as made:
        yield made


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b"".join(b'{"text": "row %d"}\n' % number for number in range(5)))
    return path


def _submit(client: Client, corpus: Path) -> str:
    file = client.upload(corpus)
    spec = {"model": "/m", "corpus": {"file": file["id"]}, "output": {"format": "jsonl"}}
    return str(client.submit(spec)["id"])


def test_an_upload_reports_its_progress(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "big.txt"
    path.write_bytes(bytes(300_000))
    seen: list[tuple[int, int]] = []
    file = client.upload(path, progress=lambda done, total: seen.append((done, total)))
    assert file["bytes"] == 300_000
    assert seen[-1] == (300_000, 300_000)
    assert len(seen) > 2


def test_a_job_is_watched_to_its_end_and_fetched(
    client: Client, fake_workers: FakeWorkers, corpus: Path, tmp_path: Path
) -> None:
    job_id = _submit(client, corpus)
    states: list[str] = []
    for event in client.watch(job_id):
        if event.type == "state":
            states.append(event.data["state"])
        if event.type == "progress" and event.data["state"] == "queued":
            hands = fake_workers.take(job_id)
            hands.plan([2, 3])
            hands.work(0)
            hands.work(1)
            hands.finish()
    assert states == ["planning", "running", "finalizing", "succeeded"]
    assert [row["row"] for row in client.results(job_id)] == [0, 1, 2, 3, 4]
    client.download(job_id, tmp_path / "out.jsonl")
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 5
    assert client.verification(job_id)["ok"]


def test_followed_results_come_as_rows_are_done(
    client: Client, fake_workers: FakeWorkers, corpus: Path
) -> None:
    job_id = _submit(client, corpus)
    hands = fake_workers.take(job_id)
    hands.plan([2, 3])
    hands.work(0)
    rows = []
    for row in client.results(job_id, follow=True):
        rows.append(row["row"])
        if row["row"] == 1:
            hands.work(1)
            hands.finish()
    assert rows == [0, 1, 2, 3, 4]


def test_a_download_that_is_refused_leaves_no_file(
    client: Client, corpus: Path, tmp_path: Path
) -> None:
    job_id = _submit(client, corpus)
    with pytest.raises(ApiError) as refused:
        client.download(job_id, tmp_path / "out.jsonl")
    assert refused.value.code == "output_not_ready"
    assert not list(tmp_path.glob("out*"))


def test_listings_go_over_all_pages(client: Client, tenant: Tenant) -> None:
    file_id = tenant.upload()
    for _ in range(105):
        tenant.submit(corpus={"file": file_id})
    assert len({job["id"] for job in client.jobs()}) == 105
    assert list(client.jobs(state="running")) == []


def test_controls_answer_with_the_job(client: Client, corpus: Path) -> None:
    job_id = _submit(client, corpus)
    assert client.pause(job_id)["state"] == "paused"
    assert client.resume(job_id)["state"] == "queued"
    assert client.cancel(job_id)["state"] == "cancelling"
    with pytest.raises(ApiError) as refused:
        client.retry(job_id)
    assert (refused.value.status, refused.value.code) == (409, "state_conflict")


def test_an_api_that_is_not_there_is_said_so(corpus: Path) -> None:
    with (
        Client("http://127.0.0.1:9", "key", patience_seconds=0.1) as client,
        pytest.raises(ApiError) as refused,
    ):
        client.upload(corpus)
    assert (refused.value.status, refused.value.code) == (0, "unreachable")


def test_an_api_that_is_killed_and_started_again_is_waited_for(
    client: Client, fake_workers: FakeWorkers, corpus: Path, installation: Installation
) -> None:
    job_id = _submit(client, corpus)
    watched = threading.Event()
    ended: list[str] = []

    def watch() -> None:
        for event in client.watch(job_id):
            watched.set()
            if event.type == "progress":
                ended.append(event.data["state"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert watched.wait(10)
    installation.kill()
    late = threading.Thread(target=installation.start)
    late.start()
    with Client(installation.url, client._http.headers["authorization"][7:]) as other:
        again = _submit(other, corpus)
    late.join()
    fake_workers.take(job_id).fail(code="corpus_empty", message="no rows")
    watcher.join(20)
    assert ended[-1] == "failed"
    assert [job["id"] for job in client.jobs()] == [again, job_id]


def test_a_file_over_the_limit_is_told_at_once_and_not_sent_again(
    tenant: Tenant, tmp_path: Path
) -> None:
    path = tmp_path / "huge.bin"
    with path.open("wb") as file:
        file.truncate(65 * 2**30)
    with Client(tenant.installation.url, tenant.key) as client:
        begun = time.monotonic()
        with pytest.raises(ApiError) as refused:
            client.upload(path)
    assert refused.value.code == "too_large"
    assert time.monotonic() - begun < 10


def test_an_api_that_is_told_to_stop_ends_within_seconds_with_a_stream_and_an_upload_open(
    tenant: Tenant, installation: Installation
) -> None:
    job_id = tenant.submit()
    begun, go_on = threading.Event(), threading.Event()

    def body() -> Iterator[bytes]:
        yield b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        yield bytes(2 * 2**20)
        begun.set()
        go_on.wait(30)

    def upload() -> None:
        with pytest.raises(Exception, match=r".*"):
            tenant.http.post(
                "/v1/files",
                content=body(),
                headers={"content-type": "multipart/form-data; boundary=B"},
            ).raise_for_status()

    sender = threading.Thread(target=upload)
    with tenant.http.stream("GET", f"/v1/jobs/{job_id}/events"):
        sender.start()
        assert begun.wait(10)
        begin = time.monotonic()
        installation.stop()
        assert time.monotonic() - begin < 15
    go_on.set()
    sender.join(20)
    installation.start()
    wait_until(lambda: tenant.http.get("/v1/files").json()["data"] != [])
    assert len(tenant.http.get("/v1/files").json()["data"]) == 1


def test_the_official_client_uploads_lists_and_fetches_files(tenant: Tenant, corpus: Path) -> None:
    official = openai.OpenAI(base_url=f"{tenant.installation.url}/v1", api_key=tenant.key)
    with corpus.open("rb") as data:
        file = official.files.create(file=data, purpose="batch")
    assert (file.filename, file.purpose, file.status) == ("corpus.jsonl", "batch", "processed")
    assert official.files.retrieve(file.id).bytes == corpus.stat().st_size
    assert [each.id for each in official.files.list()] == [file.id]
    assert official.files.content(file.id).read() == corpus.read_bytes()


def test_the_official_client_raises_its_own_errors(tenant: Tenant) -> None:
    official = openai.OpenAI(base_url=f"{tenant.installation.url}/v1", api_key=tenant.key)
    stranger = official.with_options(api_key="wrong")
    with pytest.raises(openai.NotFoundError) as missing:
        official.files.retrieve("file-none")
    assert missing.value.code == "not_found"
    with pytest.raises(openai.AuthenticationError):
        stranger.files.list()
    with pytest.raises(openai.BadRequestError) as refused:
        official.files.create(file=("a.jsonl", b"x"), purpose="A PURPOSE")  # type: ignore[arg-type]
    assert refused.value.param == "purpose"
