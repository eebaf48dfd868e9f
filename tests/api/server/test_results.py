"""What a job leaves: results while it runs, events, chunks, the output file, the proof."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from jobs.decisions.result_quality import QualityCounts
from tests.api.server.conftest import FakeWorkers
from tests.api.server.installation import Tenant

CORPUS = b"".join(b'{"text": "row %d"}\n' % number for number in range(5))


@pytest.fixture
def job_id(tenant: Tenant) -> str:
    file_id = tenant.upload(CORPUS)
    return tenant.submit(corpus={"file": file_id}, output={"format": "jsonl"})


def _results(tenant: Tenant, job_id: str, **query: int) -> dict[str, Any]:
    answer = tenant.http.get(f"/v1/jobs/{job_id}/results", params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def _events(
    tenant: Tenant, job_id: str, **headers: str
) -> list[tuple[str, str | None, dict[str, Any]]]:
    found = []
    answer = tenant.http.get(f"/v1/jobs/{job_id}/events", headers=headers)
    for block in answer.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[0] != ":")
        if "event" in fields:
            found.append((fields["event"], fields.get("id"), json.loads(fields["data"])))
    return found


def test_results_stop_at_the_first_row_that_is_not_done(
    tenant: Tenant, fake_workers: FakeWorkers, job_id: str
) -> None:
    fake_workers.take(job_id).plan([2, 2, 1])
    assert _results(tenant, job_id) == {
        "object": "list",
        "data": [],
        "next": None,
        "complete": False,
    }
    fake_workers.take(job_id).work(1)
    assert _results(tenant, job_id)["data"] == []
    fake_workers.take(job_id).work(0)
    page = _results(tenant, job_id)
    assert [row["row"] for row in page["data"]] == [0, 1, 2, 3]
    assert (page["next"], page["complete"]) == (3, False)


def test_results_are_paged_by_row_to_the_end(
    tenant: Tenant, fake_workers: FakeWorkers, job_id: str
) -> None:
    hands = fake_workers.take(job_id)
    hands.plan([2, 3])
    hands.work(0)
    hands.work(1, failed=1)
    hands.finish()
    first = _results(tenant, job_id, limit=3)
    second = _results(tenant, job_id, limit=3, after=first["next"])
    rows = first["data"] + second["data"]
    assert [row["row"] for row in rows] == [0, 1, 2, 3, 4]
    assert (first["complete"], second["complete"]) == (False, True)
    assert rows[4]["error_code"] == "empty_text"


def test_counts_and_histogram_are_those_of_done_chunks(
    tenant: Tenant, fake_workers: FakeWorkers, job_id: str
) -> None:
    fake_workers.take(job_id).plan([2, 3])
    fake_workers.take(job_id).work(0, failed=1)
    job = tenant.job(job_id)
    assert job["rows"] == {"total": 5, "planned": 5, "done": 2, "under_way": 0, "failed": 1}
    assert job["chunks"] == {"pending": 1, "leased": 0, "done": 1}
    assert job["histogram"] == {"good": 1}
    assert job["usage"]["tokens"] == 6


def test_error_rows_are_told_by_code_and_answers_in_doubt_are_warned_of(
    tenant: Tenant, fake_workers: FakeWorkers, job_id: str
) -> None:
    hands = fake_workers.take(job_id)
    hands.plan([2, 3])
    assert (tenant.job(job_id)["quality"], tenant.job(job_id)["row_errors"]) == (None, [])
    hands.work(1, failed=1, quality=QualityCounts(rows=2, rows_near_tie=1, tokens=8))
    hands.work(
        0, failed=1, quality=QualityCounts(rows=1, rows_truncated=1, tokens=4, tokens_unknown=3)
    )
    job = tenant.job(job_id)
    example = {"row": 1, "line": 2, "id": None, "message": "the text is empty", "source": None}
    assert job["row_errors"] == [{"code": "empty_text", "rows": 2, "example": example}]
    assert job["quality"] == {
        "rows": 3,
        "rows_truncated": 1,
        "rows_near_tie": 1,
        "tokens": 12,
        "tokens_unknown": 3,
    }
    warned = [each["code"] for each in job["warnings"]]
    assert warned == ["many_unknown_tokens", "many_truncated_rows", "many_near_ties"]
    hands.finish()
    told = [data for kind, _, data in _events(tenant, job_id) if kind == "row_errors"]
    assert [(each["code"], each["rows"], each["line"]) for each in told] == [("empty_text", 2, 2)]
    warnings = [data["code"] for kind, _, data in _events(tenant, job_id) if kind == "warning"]
    assert warnings == warned
    progress = [data for kind, _, data in _events(tenant, job_id) if kind == "progress"]
    assert progress[-1]["row_errors"] == job["row_errors"]


def test_parts_of_a_job_that_ended_with_too_many_failed_rows_can_be_read(
    tenant: Tenant, fake_workers: FakeWorkers
) -> None:
    job_id = tenant.submit(corpus={"file": tenant.upload(CORPUS)}, max_failed="20%")
    hands = fake_workers.take(job_id)
    hands.plan([2, 3])
    hands.work(0, failed=2)
    assert hands.end_failed()
    job = tenant.job(job_id)
    assert (job["state"], job["error"]["code"]) == ("failed", "too_many_failed_rows")
    page = _results(tenant, job_id)
    assert [row["error_code"] for row in page["data"]] == ["empty_text"] * 2
    assert page["complete"]


def test_chunks_are_listed_in_row_order(
    tenant: Tenant, fake_workers: FakeWorkers, job_id: str
) -> None:
    fake_workers.take(job_id).plan([2, 2, 1])
    fake_workers.take(job_id).work(1)
    path = f"/v1/jobs/{job_id}/chunks"
    first = tenant.http.get(path, params={"limit": 2}).json()
    rest = tenant.http.get(path, params={"limit": 2, "after": first["next"]}).json()
    assert [chunk["first_row"] for chunk in first["data"] + rest["data"]] == [0, 2, 4]
    assert [chunk["state"] for chunk in first["data"]] == ["pending", "done"]
    assert (first["has_more"], rest["has_more"]) == (True, False)


def test_the_output_file_comes_with_its_name_and_type(
    tenant: Tenant, fake_workers: FakeWorkers, job_id: str
) -> None:
    hands = fake_workers.take(job_id)
    hands.plan([5])
    hands.work(0)
    hands.finish()
    answer = tenant.http.get(f"/v1/jobs/{job_id}/output")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["content-disposition"] == f'attachment; filename="{job_id}.jsonl"'
    assert [json.loads(line)["row"] for line in answer.text.splitlines()] == [0, 1, 2, 3, 4]


def test_an_output_that_is_still_to_come_says_so(tenant: Tenant, job_id: str) -> None:
    error = tenant.http.get(f"/v1/jobs/{job_id}/output").json()["error"]
    assert error["code"] == "output_not_ready"
    assert "wait until it has ended" in error["message"]


def test_an_output_that_was_not_asked_for_says_what_to_do(tenant: Tenant) -> None:
    answer = tenant.http.get(f"/v1/jobs/{tenant.submit()}/output")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "output_not_requested"
    assert "output.format" in answer.json()["error"]["message"]


def test_verification_recounts_inputs_against_outputs(
    tenant: Tenant, fake_workers: FakeWorkers, job_id: str
) -> None:
    hands = fake_workers.take(job_id)
    hands.plan([3, 2])
    hands.work(0)
    hands.work(1, failed=2)
    hands.finish()
    report = tenant.http.get(f"/v1/jobs/{job_id}/verification").json()
    assert report["ok"], report
    assert (report["rows_input"], report["rows_output"], report["rows_failed"]) == (5, 5, 2)


def test_verification_notices_a_row_that_the_corpus_does_not_have(
    tenant: Tenant, fake_workers: FakeWorkers, job_id: str
) -> None:
    hands = fake_workers.take(job_id)
    hands.plan([6])
    hands.work(0)
    hands.finish()
    report = tenant.http.get(f"/v1/jobs/{job_id}/verification").json()
    assert not report["ok"]
    assert any("which the corpus does not have" in problem for problem in report["problems"])


def test_events_of_an_ended_job_are_told_and_the_stream_ends(
    tenant: Tenant, fake_workers: FakeWorkers, job_id: str
) -> None:
    fake_workers.take(job_id).fail(code="corpus_empty", message="no rows")
    events = _events(tenant, job_id)
    assert [(kind, data.get("state")) for kind, _, data in events] == [
        ("accepted", "queued"),
        ("state", "planning"),
        ("state", "failed"),
        ("progress", "failed"),
    ]


def test_a_stream_is_taken_up_behind_the_last_event_seen(
    tenant: Tenant, fake_workers: FakeWorkers, job_id: str
) -> None:
    fake_workers.take(job_id).fail(code="corpus_empty", message="no rows")
    whole = _events(tenant, job_id)
    rest = _events(tenant, job_id, **{"last-event-id": str(whole[1][1])})
    assert rest == whole[2:]


def test_a_bad_last_event_id_is_refused(tenant: Tenant, job_id: str) -> None:
    answer = tenant.http.get(f"/v1/jobs/{job_id}/events", headers={"last-event-id": "x"})
    assert answer.status_code == 400


def test_progress_is_told_while_the_job_lives(
    tenant: Tenant, fake_workers: FakeWorkers, job_id: str
) -> None:
    told: list[int] = []
    with tenant.http.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
        for line in answer.iter_lines():
            if not line.startswith('data: {"state"'):
                continue
            told.append(json.loads(line.removeprefix("data: "))["rows"]["done"])
            if len(told) == 1:
                fake_workers.take(job_id).plan([2, 3])
                fake_workers.take(job_id).work(0)
            elif told[-1] == 2:
                break
    assert told[0] == 0
    assert len(told) <= 4


def test_watchers_hold_no_database_connection(tenant: Tenant, job_id: str) -> None:
    """Far more streams than the pool has connections, and the API answers at once."""
    with httpx.Client(
        base_url=tenant.installation.url,
        headers=tenant.http.headers,
        limits=httpx.Limits(max_connections=60),
        timeout=20,
    ) as many:
        request = many.build_request("GET", f"/v1/jobs/{job_id}/events")
        opened = [many.send(request, stream=True) for _ in range(50)]
        assert tenant.http.get("/v1/jobs").elapsed.total_seconds() < 3
        for answer in opened:
            assert answer.status_code == 200
            answer.close()
