"""Objects that are gone or torn are a clear error in every route, with no path of the server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from api.client import Client
from api.client.transport import ApiError
from tests.api.server.conftest import FakeWorkers
from tests.api.server.installation import Installation, Tenant

CORPUS = b"".join(b'{"text": "row %d"}\n' % number for number in range(5))


@pytest.fixture
def job_id(tenant: Tenant, fake_workers: FakeWorkers) -> str:
    """A job that has succeeded, with a single file."""
    job_id = tenant.submit(corpus={"file": tenant.upload(CORPUS)}, output={"format": "jsonl"})
    hands = fake_workers.take(job_id)
    hands.plan([3, 2])
    hands.work(0)
    hands.work(1)
    hands.finish()
    return job_id


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def overwrite(path: Path) -> None:
    path.write_bytes(bytes(len(path.read_bytes())))


HARMS: dict[str, Callable[[Path], None]] = {
    "gone": Path.unlink,
    "torn": tear,
    "overwritten": overwrite,
}


def refused(tenant: Tenant, path: str) -> str:
    """The message of a route that says that bytes are damaged."""
    answer = tenant.http.get(path)
    assert answer.status_code == 422, answer.text
    assert str(tenant.installation.objects) not in answer.text
    error = answer.json()["error"]
    assert error["code"] == "damaged"
    return str(error["message"])


@pytest.mark.parametrize("harm", HARMS)
def test_results_of_a_part_that_is(tenant: Tenant, job_id: str, harm: str) -> None:
    HARMS[harm](parts(tenant.installation, job_id)[1])
    path = f"/v1/jobs/{job_id}/results"
    assert len(tenant.http.get(path, params={"limit": 3}).json()["data"]) == 3
    message = refused(tenant, path)
    assert f"jobs/{job_id}/parts/" in message
    assert "`nightshift jobs retry` computes them again" in message


@pytest.mark.parametrize("harm", HARMS)
def test_verification_of_a_part_that_is(tenant: Tenant, job_id: str, harm: str) -> None:
    HARMS[harm](parts(tenant.installation, job_id)[1])
    report = tenant.http.get(f"/v1/jobs/{job_id}/verification").json()
    assert (report["ok"], report["missing"]) == (False, 2)
    (chunk,) = [each for each in chunks(tenant, job_id) if each["damage"]]
    assert chunk["damage"] == report["problems"][0]
    job = tenant.http.post(f"/v1/jobs/{job_id}/retry").json()
    assert (job["state"], job["chunks"]["pending"]) == ("running", 1)


@pytest.mark.parametrize("harm", ["gone", "torn"])
def test_an_output_file_that_is(tenant: Tenant, job_id: str, harm: str) -> None:
    HARMS[harm](output(tenant.installation, job_id))
    assert "`nightshift jobs retry` writes it again" in refused(tenant, f"/v1/jobs/{job_id}/output")
    assert tenant.http.post(f"/v1/jobs/{job_id}/retry").json()["state"] == "running"


def test_an_output_file_that_was_overwritten_is_noticed_by_the_client(
    tenant: Tenant, job_id: str, tmp_path: Path
) -> None:
    client = Client(tenant.installation.url, key_of(tenant.http))
    client.download(job_id, tmp_path / "whole.jsonl")
    overwrite(output(tenant.installation, job_id))
    with pytest.raises(ApiError, match="other bytes than were stored"):
        client.download(job_id, tmp_path / "damaged.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["whole.jsonl"]


@pytest.mark.parametrize("harm", ["gone", "torn"])
def test_an_upload_that_is(tenant: Tenant, harm: str) -> None:
    file_id = tenant.upload(CORPUS)
    HARMS[harm](tenant.installation.objects / "files" / file_id)
    assert file_id in refused(tenant, f"/v1/files/{file_id}/content")


def test_a_store_that_fails_is_away_and_not_broken(tenant: Tenant, job_id: str) -> None:
    part = parts(tenant.installation, job_id)[0]
    folder = part.parent
    folder.rename(folder.with_name("aside"))
    folder.write_text("no folder")
    answer = tenant.http.get(f"/v1/jobs/{job_id}/results")
    folder.unlink()
    folder.with_name("aside").rename(folder)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_unavailable")
    assert str(tenant.installation.objects) not in answer.text
    assert tenant.http.get(f"/v1/jobs/{job_id}/results").status_code == 200


def parts(installation: Installation, job_id: str) -> list[Path]:
    return sorted((installation.objects / "jobs" / job_id / "parts").iterdir())


def output(installation: Installation, job_id: str) -> Path:
    return installation.objects / "jobs" / job_id / "output" / "results.jsonl"


def chunks(tenant: Tenant, job_id: str) -> list[dict[str, str | None]]:
    return list(tenant.http.get(f"/v1/jobs/{job_id}/chunks").json()["data"])


def key_of(http: httpx.Client) -> str:
    return http.headers["authorization"].removeprefix("Bearer ")
