"""Every refusal has one shape, and says what must be and what was given."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.api.server.conftest import FakeWorkers
from tests.api.server.installation import Installation, Tenant
from tests.support.servers import Server
from tests.support.waiting import wait_until


def _error(answer: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


KINDS = (
    "kind: must be one of classify, embed, evaluate, finetune, generate, pipeline, score, "
    "text2text, not 't'"
)


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"model": None}, "model", "model: must be a text, not null"),
        ({"modle": "x"}, "modle", "modle: no such field; there are chunk_rows, classify, corpus"),
        (
            {"kind": "t"},
            "kind",
            KINDS,
        ),
        (
            {"classify": {"top_k": 0}},
            "classify.top_k",
            "classify.top_k: must be greater than or equal to 1, not '0'",
        ),
        (
            {"classify": {"label": ["a", "b"]}},
            "classify.label",
            "classify.label: no such field; there are all_scores, dtype, explain",
        ),
        (
            {"classify": {"labels": ["a", "a"]}},
            "classify.labels",
            "classify.labels: labels must be at least two different texts",
        ),
        ({"corpus": {}}, "corpus", "corpus: a corpus is an uploaded `file` id, a `uri`"),
        (
            {"corpus": {"file": "file-1", "encoding": "klingon"}},
            "corpus.encoding",
            "encoding must be a Python codec name such as gb18030, not 'klingon'",
        ),
        (
            {
                "kind": "pipeline",
                "pipeline": {"parameters": {"generate_kwargs": [{"trust_remote_code": True}]}},
            },
            "pipeline.parameters",
            "parameters must not have trust_remote_code: it would run foreign code",
        ),
        (
            {"kind": "pipeline", "pipeline": {"parameters": {"batch_size": 4}}},
            "pipeline.parameters",
            "parameters must not have batch_size: set batch_rows instead",
        ),
        (
            {"kind": "pipeline", "pipeline": {"parameters": {"targets": ["a", "b\0"]}}},
            "pipeline.parameters.targets.1",
            "must hold no NUL",
        ),
        (
            {"kind": "pipeline", "pipeline": {"task": "question-answering"}},
            "pipeline.task",
            "must be 'token-classification', 'fill-mask'",
        ),
        (
            {"classify": {"explain": {}}},
            "classify.explain",
            "explain must say which rows: give rows, every or below",
        ),
        (
            {"classify": {"explain": {"rows": [-1]}}},
            "classify.explain",
            "explain.rows must be places in the corpus, from 0",
        ),
        (
            {"classify": {"int8": True, "explain": {"every": 1}}},
            "classify",
            "explain needs gradients, which int8 has not: leave int8 out",
        ),
        (
            {"classify": {"long_texts": "stride", "explain": {"every": 1}}},
            "classify",
            "leave long_texts stride out",
        ),
        (
            {
                "classify": {
                    "labels": ["a", "b"],
                    "hypothesis": "of {}",
                    "explain": {"every": 1},
                }
            },
            "classify",
            "leave hypothesis out",
        ),
        ({"output": {"format": "xlsx"}}, "output.format", "must be 'jsonl', 'csv' or 'parquet'"),
        ({"pool": "GPU 1"}, "pool", "pool: must be 1 to 40 lower-case letters"),
    ],
)
def test_a_bad_spec_is_refused_by_the_path_of_its_field(
    tenant: Tenant, fields: dict[str, Any], param: str, message: str
) -> None:
    spec = {"model": "/m", "corpus": {"file": "file-1"}, **fields}
    answer = tenant.http.post("/v1/jobs", json=spec)
    error = _error(answer)
    assert answer.status_code == 400
    assert (error["code"], error["param"], error["type"]) == (
        "bad_spec",
        param,
        "invalid_request_error",
    )
    assert message in error["message"]


def test_several_bad_fields_are_all_named(tenant: Tenant) -> None:
    answer = tenant.http.post("/v1/jobs", json={"corpus": {"fil": "x"}})
    message = _error(answer)["message"]
    assert "corpus.fil: no such field" in message
    assert "model: must be given" in message


def test_a_body_that_is_not_json_is_refused(tenant: Tenant) -> None:
    answer = tenant.http.post(
        "/v1/jobs", content=b"{nope", headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    assert "must be JSON" in _error(answer)["message"]


@pytest.mark.parametrize("value", ["\x00", "\ud800"])
def test_text_that_cannot_be_stored_is_refused(tenant: Tenant, value: str) -> None:
    body = json.dumps(tenant.spec(name=f"a{value}b"))
    answer = tenant.http.post(
        "/v1/jobs", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    _error(answer)


def test_a_number_that_json_does_not_have_is_refused(tenant: Tenant) -> None:
    spec = tenant.spec(kind="pipeline", pipeline={"parameters": {"threshold": float("nan")}})
    answer = tenant.http.post(
        "/v1/jobs", content=json.dumps(spec), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    _error(answer)


def test_a_body_of_two_megabytes_is_too_large_for_a_spec(tenant: Tenant) -> None:
    spec = tenant.spec(name="x" * 2 * 2**20)
    answer = tenant.http.post("/v1/jobs", json=spec)
    assert answer.status_code == 413
    assert _error(answer)["code"] == "too_large"


def test_a_file_of_another_project_is_no_corpus(tenant: Tenant, stranger: Tenant) -> None:
    file_id = tenant.upload()
    answer = stranger.http.post("/v1/jobs", json=stranger.spec(corpus={"file": file_id}))
    assert answer.status_code == 404
    assert (_error(answer)["code"], _error(answer)["param"]) == ("file_not_found", "corpus.file")


def test_a_uri_outside_the_allow_list_is_refused(tenant: Tenant) -> None:
    answer = tenant.http.post("/v1/jobs", json=tenant.spec(corpus={"uri": "file:///etc/passwd"}))
    assert answer.status_code == 400
    assert _error(answer)["code"] == "corpus_refused"


def test_a_uri_on_the_allow_list_is_accepted(tenant: Tenant) -> None:
    tenant.submit(corpus={"uri": "file:///allowed/corpus.csv"})


@pytest.mark.parametrize(
    "header", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic x"}]
)
def test_a_missing_and_a_wrong_key_are_told_the_same(
    installation: Installation, header: dict[str, str]
) -> None:
    answer = httpx.get(f"{installation.url}/v1/jobs", headers=header)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert _error(answer)["message"].startswith("a valid API key must be sent")


def test_an_unknown_route_is_named(tenant: Tenant) -> None:
    answer = tenant.http.get("/v1/jbos")
    assert answer.status_code == 404
    assert _error(answer)["code"] == "unknown_route"


@pytest.mark.parametrize("job_id", ["a%00b", "a%2Fb", "..", "x" * 200, "%F0%9F%92%A3"])
def test_an_id_that_cannot_be_is_not_found(tenant: Tenant, job_id: str) -> None:
    assert tenant.http.get(f"/v1/jobs/{job_id}/chunks").status_code == 404


@pytest.mark.parametrize("body", [b"", b"\xff", b"[" * 1_000], ids=["none", "bytes", "deep"])
def test_the_wrong_method_is_refused_whatever_its_body(tenant: Tenant, body: bytes) -> None:
    answer = tenant.http.request("DELETE", "/v1/jobs", content=body)
    assert answer.status_code == 405
    assert _error(answer)["code"] == "method_not_allowed"


@pytest.mark.parametrize("limit", ["0", "1001", "many"])
def test_a_limit_must_be_a_number_from_1_to_1000(tenant: Tenant, limit: str) -> None:
    answer = tenant.http.get("/v1/jobs", params={"limit": limit})
    assert answer.status_code == 400
    assert _error(answer)["param"] == "limit"


def test_a_database_that_is_down_is_told_with_a_time_to_come_back(
    tenant: Tenant, installation: Installation, postgres: Server
) -> None:
    postgres.stop()
    try:
        answer = tenant.http.get("/v1/jobs")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "2"
        assert _error(answer)["code"] == "database_unavailable"
        assert httpx.get(f"{installation.url}/readyz").status_code == 503
        assert httpx.get(f"{installation.url}/healthz").status_code == 200
    finally:
        postgres.start()
    wait_until(lambda: tenant.http.get("/v1/jobs").status_code == 200)


def test_an_error_that_nobody_expected_has_an_id_and_tells_nothing(
    tenant: Tenant, installation: Installation, fake_workers: FakeWorkers
) -> None:
    job_id = tenant.submit()
    fake_workers.take(job_id).forget_spec()
    answer = tenant.http.get(f"/v1/jobs/{job_id}/results")
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] in _error(answer)["message"]
    assert "Traceback" not in answer.text
    wait_until(lambda: "KeyError" in installation.log)


def test_a_part_that_is_gone_is_an_error_that_says_what_to_do(
    tenant: Tenant, installation: Installation, fake_workers: FakeWorkers
) -> None:
    job_id = tenant.submit()
    fake_workers.take(job_id).plan([1])
    fake_workers.take(job_id).work(0)
    for part in (installation.objects / "jobs" / job_id / "parts").iterdir():
        part.unlink()
    answer = tenant.http.get(f"/v1/jobs/{job_id}/results")
    assert answer.status_code == 422
    assert f"jobs/{job_id}/parts/" in _error(answer)["message"]
    assert str(installation.objects) not in answer.text


def test_a_corpus_that_has_gone_is_the_callers_to_know(tenant: Tenant) -> None:
    file_id = tenant.upload()
    job_id = tenant.submit(corpus={"file": file_id})
    (tenant.installation.objects / "files" / file_id).unlink()
    answer = tenant.http.get(f"/v1/jobs/{job_id}/verification")
    assert answer.status_code == 422
    assert _error(answer)["code"] == "corpus_unreadable"


def test_a_body_without_an_announced_length_is_limited_too(tenant: Tenant) -> None:
    answer = tenant.http.post(
        "/v1/jobs",
        content=(b" " * 2**16 for _ in range(32)),
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 413
    assert _error(answer)["code"] == "too_large"
