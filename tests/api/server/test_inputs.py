"""Corpora of several objects over the API: tags of files, refusals, and what a job reads."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.inputs import Input
from tests.api.server.conftest import FakeWorkers
from tests.api.server.installation import Tenant


def _upload(tenant: Tenant, **fields: str) -> dict[str, Any]:
    answer = tenant.http.post("/v1/files", files={"file": ("a.jsonl", b"x")}, data=fields)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def _refusal(tenant: Tenant, **corpus: Any) -> tuple[int, str, str]:
    answer = tenant.http.post("/v1/jobs", json=tenant.spec(corpus=corpus))
    error = answer.json()["error"]
    return answer.status_code, error["code"], f"{error['param']}: {error['message']}"


def test_files_have_a_tag_and_are_listed_by_it(tenant: Tenant) -> None:
    tagged, other = _upload(tenant, tag="nightly-1"), _upload(tenant)
    assert (tagged["nightshift"]["tag"], other["nightshift"]["tag"]) == ("nightly-1", None)
    found = tenant.http.get("/v1/files", params={"tag": "nightly-1"}).json()["data"]
    assert [file["id"] for file in found] == [tagged["id"]]


@pytest.mark.parametrize("tag", ["", "a b", "x" * 65, "-a"])
def test_a_bad_tag_is_refused_and_leaves_nothing(tenant: Tenant, tag: str) -> None:
    answer = tenant.http.post(
        "/v1/files", files={"file": ("a.jsonl", b"x")}, data={"tag": tag}
    ).json()
    assert answer["error"]["param"] == "tag"
    assert tenant.http.get("/v1/files").json()["data"] == []


@pytest.mark.parametrize(
    ("corpus", "problem"),
    [
        ({}, "give exactly one"),
        ({"tag": "a", "uri": "file:///data/a.csv"}, "give exactly one"),
        ({"sources": []}, "corpus.sources"),
        ({"sources": ["a b"]}, "the id of an uploaded file or a URI"),
        ({"sources": ["file:///etc/*"]}, "corpus.sources: 'file:///etc/*' is outside"),
        ({"uri": "s3://*/a"}, "must name its bucket"),
        ({"uri": "hf://datasets/a/b/*"}, "one by one"),
        ({"tag": "a b"}, "corpus.tag"),
        ({"tag": "a", "since": "last_success"}, "since is for the job of a schedule"),
        ({"tag": "a", "since": "yesterday"}, "corpus.since"),
        ({"tag": "a", "min_rows": 0}, "corpus.min_rows"),
    ],
)
def test_a_corpus_that_cannot_be_meant_is_refused(
    tenant: Tenant, corpus: dict[str, Any], problem: str
) -> None:
    status, _, message = _refusal(tenant, **corpus)
    assert status == 400
    assert problem in message


def test_a_file_among_several_must_be_there_and_is_kept(tenant: Tenant) -> None:
    file_id = tenant.upload()
    assert _refusal(tenant, sources=[file_id, "file-none"])[:2] == (404, "file_not_found")
    tenant.submit(corpus={"sources": [file_id]})
    answer = tenant.http.delete(f"/v1/files/{file_id}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "file_in_use")


def test_what_a_job_reads_is_shown_page_by_page(
    tenant: Tenant, stranger: Tenant, fake_workers: FakeWorkers
) -> None:
    file_id = tenant.upload()
    job_id = tenant.submit(corpus={"sources": [file_id]})
    found = f"/v1/jobs/{job_id}/inputs"
    assert tenant.http.get(found).json()["data"] == []
    read = [
        Input(file_id, "v", 16, object_key="k", filename="a.jsonl", sha256="0" * 64),
        *(Input(f"s3://b/{n}.csv", f"1:{n}", 1) for n in range(3)),
    ]
    fake_workers.take(job_id).plan([2], read=read)
    first = tenant.http.get(found, params={"limit": 3}).json()
    second = tenant.http.get(found, params={"limit": 3, "after": first["next"]}).json()
    assert (first["has_more"], second["has_more"], second["next"]) == (True, False, 4)
    data = first["data"] + second["data"]
    assert [each["name"] for each in data] == [each.name for each in read]
    assert data[0] == {
        "object": "input",
        "split": "rows",
        "index": 0,
        "name": file_id,
        "version": "v",
        "filename": "a.jsonl",
        "bytes": 16,
        "rows": None,
        "sha256": "0" * 64,
        "query": None,
    }
    assert stranger.http.get(found).status_code == 404


def test_a_file_that_a_job_took_by_its_tag_is_kept_while_it_runs(
    tenant: Tenant, fake_workers: FakeWorkers
) -> None:
    file_id = str(_upload(tenant, tag="kept")["id"])
    job_id = tenant.submit(corpus={"tag": "kept"})
    read = [Input(file_id, "v", 1, object_key="k", filename="a.jsonl")]
    hands = fake_workers.take(job_id)
    hands.plan([1], read=read)
    assert tenant.http.delete(f"/v1/files/{file_id}").status_code == 409
    hands.work(0)
    hands.finish()
    assert tenant.http.delete(f"/v1/files/{file_id}").status_code == 200
