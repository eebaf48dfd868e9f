"""Schedules over HTTP: made, shown, changed, triggered, and refused in one clear sentence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.api.server.installation import Tenant

HOURLY = {"cron": ["0 * * * *"]}


def body(tenant: Tenant, **fields: Any) -> dict[str, Any]:
    spec = tenant.spec(corpus={"uri": "file:///allowed/{fire_time:%Y%m%d}.jsonl"})
    return {"name": "nightly", "timing": HOURLY, "jobs": [{"spec": spec}], **fields}


def make(tenant: Tenant, **fields: Any) -> dict[str, Any]:
    answer = tenant.http.post("/v1/schedules", json=body(tenant, **fields))
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def night(tenant: Tenant) -> dict[str, Any]:
    """A fine-tune, and what is labelled with the model that it trains."""
    day = {"uri": "file:///allowed/{fire_time:%Y%m%d}.jsonl"}
    return {
        "train": tenant.spec(kind="finetune", model="news", base="/models/tiny", corpus=day),
        "label": tenant.spec(model="{train.model}", corpus=day),
        "clean": tenant.spec(depends_on=["label:end"]),
    }


def error(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    return dict(answer.json()["error"])


def test_a_schedule_is_made_and_shown_by_id_and_by_name(tenant: Tenant) -> None:
    timing = {"cron": "0 2 * * *", "time_zone": "Europe/Berlin"}
    made = make(tenant, timing=timing, policy={"overlap": "buffer_one"})
    assert made["words"] == "at 02:00 every day, Europe/Berlin time"
    assert (made["state"], made["version"], made["fired"]) == ("active", 1, 0)
    assert made["policy"]["catch_up"] == {"mode": "latest", "window": "1d", "limit": 1000}
    for key in (made["id"], "nightly"):
        assert tenant.http.get(f"/v1/schedules/{key}").json() == made
    page = tenant.http.get("/v1/schedules").json()
    assert ([each["id"] for each in page["data"]], page["has_more"]) == ([made["id"]], False)


def test_the_same_key_is_one_schedule(tenant: Tenant) -> None:
    same = body(tenant)
    answers = [
        tenant.http.post("/v1/schedules", json=same, headers={"idempotency-key": "k"})
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 200]
    assert answers[0].json() == answers[1].json()
    assert error(tenant.http.post("/v1/schedules", json=same), 409)["code"] == "schedule_exists"


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"timing": {"cron": "99 * * * *"}}, "timing.cron.0", "timing.cron.0: "),
        ({"timing": {}}, "timing", "give exactly one"),
        ({"timing": {**HOURLY, "time_zone": "Berlin"}}, "timing.time_zone", "Europe/Berlin"),
        ({"timing": {**HOURLY, "zone": "UTC"}}, "timing.zone", "no such field"),
        ({"policy": {"overlap": "both"}}, "policy.overlap", "buffer_one"),
        ({"jobs": []}, "jobs", "at least 1"),
        ({"jobs": [{"spec": {"kind": "dance"}}]}, "jobs.0.spec.kind", "must be one of classify"),
        ({"name": "sched_1"}, "name", "must not begin with 'sched_'"),
        ({"name": "a b"}, "name", "letters, digits"),
    ],
)
def test_a_refusal_names_its_field(
    tenant: Tenant, fields: dict[str, Any], param: str, words: str
) -> None:
    found = error(tenant.http.post("/v1/schedules", json=body(tenant, **fields)), 400)
    assert found["param"] == param
    assert words in found["message"]


def test_an_edit_makes_a_version_and_keeps_what_it_does_not_name(tenant: Tenant) -> None:
    made = make(tenant, policy={"overlap": "allow"})
    path = f"/v1/schedules/{made['id']}"
    edited = tenant.http.patch(path, json={"timing": {"time_zone": "Asia/Kolkata"}}).json()
    assert edited["version"] == 2
    assert edited["timing"]["cron"] == HOURLY["cron"]
    assert edited["policy"] == made["policy"]
    back = tenant.http.patch(path, json={"timing": {"time_zone": None}, "version": 2}).json()
    assert back["timing"] == made["timing"]
    stale = error(tenant.http.patch(path, json={"name": "other", "version": 2}), 409)
    assert stale["code"] == "schedule_changed"
    versions = tenant.http.get(f"{path}/versions").json()["data"]
    assert [each["version"] for each in versions] == [3, 2, 1]
    assert {each["made_by"] for each in versions} == {made["edited_by"]}


def test_a_pause_shows_its_note(tenant: Tenant) -> None:
    path = f"/v1/schedules/{make(tenant)['id']}"
    paused = tenant.http.post(f"{path}/pause", json={"note": "the cluster moves"}).json()
    assert (paused["state"], paused["note"]) == ("paused", "the cluster moves")
    assert paused["next_fire_time"] is None
    resumed = tenant.http.post(f"{path}/resume").json()
    assert (resumed["state"], resumed["note"]) == ("active", None)


def test_a_trigger_submits_a_job_that_names_its_schedule(tenant: Tenant) -> None:
    path = f"/v1/schedules/{make(tenant)['id']}"
    fires = [
        tenant.http.post(f"{path}/trigger", headers={"idempotency-key": "now"}).json()
        for _ in range(2)
    ]
    assert fires[0] == fires[1]
    job = tenant.job(fires[0]["jobs"][0]["id"])
    assert job["schedule"]["name"] == "nightly"
    assert job["schedule"]["fire_time"] == fires[0]["fire_time"]
    day = datetime.now(UTC).strftime("%Y%m%d")
    assert job["spec"]["corpus"]["uri"] == f"file:///allowed/{day}.jsonl"
    page = tenant.http.get(f"{path}/fires", params={"state": "submitted"}).json()
    assert page["data"] == [fires[0]]
    assert tenant.http.get(path).json()["last_fire"] == fires[0]


def test_a_preview_has_the_next_twenty_in_utc_and_in_the_zone(tenant: Tenant) -> None:
    timing = {"cron": "30 9 * * *", "time_zone": "Asia/Kolkata"}
    path = f"/v1/schedules/{make(tenant, timing=timing)['id']}"
    preview = tenant.http.get(f"{path}/preview").json()
    assert len(preview["data"]) == 20
    first = preview["data"][0]
    assert first["fire_time"].endswith("T04:00:00Z")
    assert first["local_time"].endswith("T09:30:00+05:30")
    assert len(tenant.http.get(f"{path}/preview?limit=3").json()["data"]) == 3


def test_a_backfill_makes_past_fires_once(tenant: Tenant) -> None:
    path = f"/v1/schedules/{make(tenant)['id']}"
    until = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    span = {"since": (until - timedelta(hours=3)).isoformat(), "until": until.isoformat()}
    made = tenant.http.post(f"{path}/backfill", json={**span, "at_most": 2}).json()
    assert (made["fires"], made["left_out"]) == (4, 0)
    again = tenant.http.post(f"{path}/backfill", json=span).json()
    assert (again["fires"], again["left_out"]) == (0, 4)
    states = [fire["state"] for fire in tenant.http.get(f"{path}/fires").json()["data"]]
    assert states == ["buffered", "buffered", "submitted", "submitted"]


def test_fires_are_paged_by_time(tenant: Tenant) -> None:
    path = f"/v1/schedules/{make(tenant)['id']}"
    for _ in range(3):
        tenant.http.post(f"{path}/trigger")
    seen, query = [], {"limit": 2}
    while True:
        page = tenant.http.get(f"{path}/fires", params=query).json()
        seen += [fire["fire_time"] for fire in page["data"]]
        if not page["has_more"]:
            break
        query["after"] = page["next"]
    assert len(seen) == 3
    assert seen == sorted(seen, reverse=True)


def test_a_deleted_schedule_is_gone_and_its_jobs_stay(tenant: Tenant) -> None:
    made = make(tenant)
    path = f"/v1/schedules/{made['id']}"
    job_id = tenant.http.post(f"{path}/trigger").json()["jobs"][0]["id"]
    assert tenant.http.delete(path).json() == {
        "id": made["id"],
        "object": "schedule",
        "deleted": True,
    }
    error(tenant.http.get(path), 404)
    error(tenant.http.delete(path), 404)
    assert tenant.job(job_id)["schedule"]["id"] == made["id"]


def test_a_strangers_schedule_does_not_exist(tenant: Tenant, stranger: Tenant) -> None:
    made = make(tenant)
    for key in (made["id"], made["name"]):
        path = f"/v1/schedules/{key}"
        for method, suffix, sent in (
            ("GET", "", None),
            ("PATCH", "", {"name": "mine"}),
            ("DELETE", "", None),
            ("POST", "/pause", {}),
            ("POST", "/resume", {}),
            ("POST", "/trigger", {}),
            ("POST", "/backfill", {"since": "2026-01-01T00:00Z", "until": "2026-01-01T00:00Z"}),
            ("GET", "/fires", None),
            ("GET", "/preview", None),
            ("GET", "/versions", None),
        ):
            found = error(stranger.http.request(method, f"{path}{suffix}", json=sent), 404)
            assert found["message"] == f"no schedule {key!r} in this project"
    assert stranger.http.get("/v1/schedules").json()["data"] == []


def test_a_schedule_of_several_jobs_is_shown_as_it_was_given_and_edited(tenant: Tenant) -> None:
    jobs = night(tenant)
    made = make(tenant, jobs=jobs)
    assert made["jobs"] == jobs
    assert list(made["jobs"]) == list(jobs)
    path = f"/v1/schedules/{made['id']}"
    assert len(tenant.http.get(f"{path}/preview").json()["data"]) == 20
    one = tenant.http.patch(path, json={"jobs": [{"spec": jobs["clean"] | {"depends_on": []}}]})
    assert [job["name"] for job in one.json()["jobs"]] == [None]
    back = tenant.http.patch(path, json={"jobs": made["jobs"]}).json()
    assert back["jobs"] == jobs
    versions = tenant.http.get(f"{path}/versions").json()["data"]
    assert [type(each["jobs"]) for each in versions] == [dict, list, dict]


def test_a_trigger_of_several_jobs_is_one_group(tenant: Tenant) -> None:
    jobs = night(tenant)
    path = f"/v1/schedules/{make(tenant, jobs=jobs)['id']}"
    fire = tenant.http.post(f"{path}/trigger").json()
    assert [job["member"] for job in fire["jobs"]] == list(jobs)
    assert {job["state"] for job in fire["jobs"]} == {"queued"}
    group = tenant.http.get(f"/v1/groups/{fire['group']}").json()
    assert (group["name"], group["schedule"]["fire_time"]) == ("nightly", fire["fire_time"])
    assert [member["job"] for member in group["members"]] == [job["id"] for job in fire["jobs"]]
    train, label, _ = group["members"]
    assert label["waiting_reason"] == f"it needs train ({train['job']}) (queued) to succeed"
    assert tenant.http.post(f"/v1/groups/{fire['group']}/cancel").status_code == 200
    listed = tenant.http.get(f"{path}/fires").json()["data"]
    assert (listed[0]["group"], listed[0]["state"]) == (fire["group"], "submitted")


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"bad": {"kind": "dance"}}, "jobs.bad.kind", "must be one of classify"),
        ({"a b": {}}, "jobs.3.name", "must be 1 to 40 letters"),
        ({"clean": {"depends_on": ["clean"]}}, "jobs", "a circle: clean"),
        ({"clean": {"depends_on": ["none"]}}, "jobs.clean.depends_on.0.job", "no job 'none'"),
        (
            {"label": {"model": "{clean.model}"}, "clean": {"depends_on": []}},
            "jobs.label.model",
            "registers no model",
        ),
        ({"label": {"name": "{day}"}}, "jobs.label.name", "there is no placeholder '{day}'"),
        (
            {"label": {"corpus": {"uri": "file:///etc/x"}}},
            "jobs.label.corpus.uri",
            "is outside",
        ),
    ],
)
def test_a_refusal_names_the_member_and_its_field(
    tenant: Tenant, change: dict[str, Any], param: str, words: str
) -> None:
    jobs = night(tenant)
    for name, fields in change.items():
        jobs[name] = {**jobs.get(name, {}), **fields}
    answer = tenant.http.post("/v1/schedules", json=body(tenant, jobs=jobs))
    found = error(answer, 404 if "no job" in words else 400)
    assert found["param"] == param
    assert words in found["message"]


@pytest.mark.parametrize("names", [(None, None), ("train", None), ("train", "train")])
def test_several_jobs_have_names_of_their_own(
    tenant: Tenant, names: tuple[str | None, ...]
) -> None:
    jobs = [{"name": name, "spec": tenant.spec()} for name in names]
    found = error(tenant.http.post("/v1/schedules", json=body(tenant, jobs=jobs)), 400)
    assert found["param"] == "jobs"
    assert "give one `spec`, or specs by name" in found["message"]
