"""Groups, dependencies and sweeps over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from api.client import ApiError, Client
from tests.api.server.installation import Tenant


@pytest.fixture
def client(tenant: Tenant) -> Client:
    return Client(tenant.installation.url, tenant.key)


def chain(tenant: Tenant) -> dict[str, Any]:
    train = tenant.spec(kind="finetune", model="news", base="/models/tiny")
    label = tenant.spec(model="{train.model}", name="labels of tonight")
    return {"name": "nightly", "jobs": {"train": train, "label": label}}


def test_a_job_shows_what_it_depends_on_and_why_it_waits(tenant: Tenant, client: Client) -> None:
    first = tenant.submit(name="first")
    job = client.submit(tenant.spec(depends_on=[{"job": first, "on": "end"}]))
    assert job["depends_on"] == [{"job": first, "name": "first", "on": "end", "state": "queued"}]
    assert job["waiting_reason"] == f"it needs first ({first}) (queued) to end"
    assert "depends_on" not in job["spec"]
    assert (job["group"], job["member"]) == (None, None)


def test_cancel_and_retry_act_on_one_job_or_on_it_and_all_behind_it(
    tenant: Tenant, client: Client
) -> None:
    first, second = tenant.submit(), tenant.submit()
    behind = {each: tenant.submit(depends_on=[each]) for each in (first, second)}
    client.cancel(first)
    client.cancel(second, with_dependents=True)
    states = [tenant.job(job)["state"] for job in (behind[first], behind[second])]
    assert states == ["queued", "cancelling"]
    with pytest.raises(ApiError, match="retry it when it has ended"):
        client.retry(first, with_dependents=True)


def test_a_chain_is_one_group_with_one_progress(tenant: Tenant, client: Client) -> None:
    group = client.groups.submit(chain(tenant))
    assert (group["object"], group["name"], group["state"]) == ("group", "nightly", "queued")
    train, label = group["members"]
    assert [train["member"], label["member"]] == ["train", "label"]
    assert label["depends_on"] == [
        {"job": train["job"], "name": "train", "on": "success", "state": "queued"}
    ]
    assert group["progress"] == {
        "share": 0.0,
        "ended": 0,
        "jobs": 2,
        "rows": {"done": 0, "total": None},
        "steps": {"done": 0, "total": None},
        "eta_seconds": None,
    }
    (entry,) = client.groups.list()
    assert (entry["id"], entry["jobs"]) == (group["id"], {"queued": 2})
    members = list(client.jobs(group=group["id"]))
    assert {job["id"] for job in members} == {train["job"], label["job"]}
    assert {job["group"] for job in members} == {group["id"]}
    assert client.groups.cancel(group["id"])["state"] == "cancelling"


def test_the_same_key_is_the_same_group(tenant: Tenant) -> None:
    spec, headers = chain(tenant), {"idempotency-key": "once"}
    first = tenant.http.post("/v1/groups", json=spec, headers=headers)
    again = tenant.http.post("/v1/groups", json=spec, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]


@pytest.mark.parametrize(
    ("member", "param", "said"),
    [
        ({"kind": "classify"}, "jobs.bad.corpus", "must be given"),
        ({"kind": "score", "pol": "x"}, "jobs.bad.corpus", "jobs.bad.pol: no such field; there"),
        ({"kind": "paint"}, "jobs.bad.kind", "must be one of"),
        ({"corpus": {"uri": "file:///etc/passwd"}, "model": "/m"}, "jobs.bad.corpus.uri", "allow"),
        ({"corpus": {"uri": "file:///allowed/a"}, "model": "{no.model}"}, "jobs.bad.model", "'no'"),
    ],
)
def test_a_refusal_names_the_member_and_the_field(
    tenant: Tenant, member: dict[str, Any], param: str, said: str
) -> None:
    answer = tenant.http.post("/v1/groups", json={"jobs": {"bad": member}})
    error = answer.json()["error"]
    assert answer.status_code in (400, 404, 422)
    assert error["param"] == param
    assert said in error["message"]


def test_a_circle_and_a_bad_grid_are_refused_in_words(tenant: Tenant) -> None:
    spec = tenant.spec()
    jobs = {"a": {**spec, "depends_on": ["b"]}, "b": {**spec, "depends_on": ["a"]}}
    said = tenant.http.post("/v1/groups", json={"jobs": jobs}).json()["error"]["message"]
    assert said.startswith("the jobs wait for one another in a circle: ")
    train = tenant.spec(kind="finetune", model="news", base="/models/tiny")
    sweep = {"sweep": {"job": train, "grid": {"train.speed": [1, 2]}}}
    said = tenant.http.post("/v1/groups", json=sweep).json()["error"]["message"]
    assert "at speed=1: train.speed" in said


def test_a_sweep_has_a_table_of_its_options(tenant: Tenant, client: Client) -> None:
    train = tenant.spec(kind="finetune", model="news", base="/models/tiny", name="tonight")
    group = client.groups.submit({"sweep": {"job": train, "grid": {"learning_rate": [1e-4, 1e-3]}}})
    assert group["swept"] == ["train.learning_rate"]
    rows = client.groups.metrics(group["id"])
    assert [row["options"] for row in rows] == [
        {"train.learning_rate": 1e-4},
        {"train.learning_rate": 1e-3},
    ]
    assert [(row["metrics"], row["best"], row["model"]) for row in rows] == [({}, False, None)] * 2


def test_another_projects_group_looks_like_none(
    tenant: Tenant, stranger: Tenant, client: Client
) -> None:
    group_id = client.groups.submit(chain(tenant))["id"]
    for method, path in (
        ("GET", ""),
        ("GET", "/metrics"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
    ):
        theirs = stranger.http.request(method, f"/v1/groups/{group_id}{path}")
        none = stranger.http.request(method, f"/v1/groups/group_none{path}")
        assert theirs.status_code == none.status_code == 404
        assert theirs.text.replace(group_id, "ID") == none.text.replace("group_none", "ID")
    assert stranger.http.get("/v1/groups").json()["data"] == []
    assert stranger.http.get("/v1/groups", params={"after": group_id}).status_code == 404
    assert stranger.http.get("/v1/jobs", params={"group": group_id}).json()["data"] == []
    theirs_job = stranger.spec(depends_on=[client.groups.get(group_id)["members"][0]["job"]])
    assert stranger.http.post("/v1/jobs", json=theirs_job).status_code == 404
