"""The pages: who may see them, what they show, what they change, and what they weigh."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import sqlalchemy as sa

from api.server import browser_sessions, signed_claims
from jobs.tables import ApiKey
from tests.api.server.conftest import FakeWorkers
from tests.api.server.installation import (
    Installation,
    Tenant,
    new_tenant,
    start_installation,
)
from tests.api.server.page_reader import Links, Reader, reader_of, stranger_at
from tests.support.servers import Databases
from tests.support.waiting import wait_until

PAGES = ("/", "/pools", "/schedules", "/models")
HEAVIEST = 300_000
"""Bytes of a page with all that it loads."""

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


@pytest.fixture
def reader(tenant: Tenant) -> Iterator[Reader]:
    with reader_of(tenant) as made:
        yield made


@pytest.mark.parametrize("path", [*PAGES, "/jobs/job_1", "/selection/cancel?state=running"])
def test_who_has_not_signed_in_is_led_to_the_form_and_back(
    installation: Installation, path: str
) -> None:
    with stranger_at(installation.url) as stranger:
        answer = stranger.get(path)
        assert answer.status_code == 303
        assert answer.headers["location"] == f"/sign-in?next={quote(path, safe='')}"
        form = stranger.get(answer.headers["location"])
        assert f'name="back" value="{path}"' in form.text


def test_the_cookie_of_a_session_is_kept_from_scripts_and_other_sites(tenant: Tenant) -> None:
    with stranger_at(tenant.installation.url) as stranger:
        answer = stranger.sign_in(tenant.key)
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Secure" not in cookie  # this installation is reached over plain HTTP
    assert tenant.key not in cookie


@pytest.mark.parametrize("key", ["", "wrong", "ns-" + "0" * 32, "ä" * 400])
def test_a_wrong_key_opens_nothing(installation: Installation, key: str) -> None:
    with stranger_at(installation.url) as stranger:
        answer = stranger.sign_in(key)
        assert answer.status_code == 401
        assert "is not known here" in answer.text
        assert stranger.get("/").status_code == 303


@pytest.mark.parametrize(
    "back",
    ["//evil.example/", "https://evil.example/", "/\\evil.example", "/v1/jobs", "javascript:1"],
)
def test_signing_in_leads_to_no_other_site(tenant: Tenant, back: str) -> None:
    with stranger_at(tenant.installation.url) as stranger:
        assert stranger.sign_in(tenant.key, back=back).headers["location"] == "/"


def test_a_session_ends_with_its_key(tenant: Tenant, reader: Reader) -> None:
    assert reader.get("/").status_code == 200
    with tenant.installation.sessions() as sessions, sessions.begin() as session:
        session.execute(
            sa.update(ApiKey)
            .where(ApiKey.project_id == tenant.project)
            .values(revoked_at=sa.func.now())
        )
    wait_until(lambda: reader.get("/").status_code == 303)


def _key(tenant: Tenant, *scopes: str) -> str:
    answer = tenant.http.post("/v1/keys", json={"scopes": scopes})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"])


def test_a_key_that_may_only_read_changes_nothing_by_the_page(tenant: Tenant) -> None:
    job_id = tenant.submit()
    with stranger_at(tenant.installation.url) as reader:
        assert reader.sign_in(_key(tenant, "read")).status_code == 303
        shown = reader.get(f"/jobs/{job_id}")
        assert shown.status_code == 200
        assert Links(shown.text).forms == ["/sign-out"]
        for path in (f"/jobs/{job_id}/cancel", "/selection/cancel"):
            answer = reader.post(path)
            assert answer.status_code == 403
            assert "scope submit" in answer.text
    assert tenant.http.get(f"/v1/jobs/{job_id}").json()["state"] != "cancelled"


def test_a_key_that_may_not_read_signs_nobody_in(tenant: Tenant) -> None:
    with stranger_at(tenant.installation.url) as reader:
        answer = reader.sign_in(_key(tenant, "submit"))
        assert answer.status_code == 401
        assert "scope read" in answer.text


def test_what_is_done_by_the_page_is_in_the_audit_trail(tenant: Tenant, reader: Reader) -> None:
    job_id = tenant.submit()
    assert reader.post(f"/jobs/{job_id}/cancel").status_code == 303
    entries = tenant.http.get("/v1/audit").json()["data"]
    found = [each for each in entries if each["route"] == "/jobs/{job_id}/{action}"]
    assert [(each["method"], each["status"]) for each in found] == [("POST", 303)]
    assert job_id in found[0]["object"]


@pytest.mark.parametrize(("ends", "status"), [(1_700_000_000, 303), (10_000_000_000, 200)])
def test_a_session_ends_after_its_time(tenant: Tenant, ends: int, status: int) -> None:
    claims = (tenant.project, ends, "00")
    cookie = signed_claims.issue(*claims, purpose=browser_sessions.PURPOSE, key=tenant.key)
    with stranger_at(tenant.installation.url) as stranger:
        answer = stranger.get("/", cookie=f"{browser_sessions.COOKIE}={cookie}")
    assert answer.status_code == status


def test_a_cookie_is_no_key_and_a_key_no_cookie(tenant: Tenant, reader: Reader) -> None:
    """Each is tried right after it was found valid as what it is."""
    cookie = reader.http.cookies[browser_sessions.COOKIE]
    assert reader.get("/").status_code == 200
    with stranger_at(tenant.installation.url) as stranger:
        asked = stranger.get("/v1/jobs", authorization=f"Bearer {cookie}")
        assert asked.status_code == 401
        assert tenant.http.get("/v1/jobs").status_code == 200
        shown = stranger.get("/", cookie=f"{browser_sessions.COOKIE}={tenant.key}")
        assert shown.status_code == 303


@pytest.mark.parametrize("project", ["\0", "\ud800"])
def test_a_cookie_that_names_no_project_leads_to_the_form(
    installation: Installation, project: str
) -> None:
    payload = signed_claims.text(json.dumps([project, 9_999_999_999, ""]).encode())
    with stranger_at(installation.url) as stranger:
        answer = stranger.get("/", cookie=f"{browser_sessions.COOKIE}={payload}.AA")
    assert answer.status_code == 303


def test_a_session_ends_when_its_holder_signs_out(reader: Reader) -> None:
    assert reader.post("/sign-out").status_code == 303
    assert reader.get("/").status_code == 303


@pytest.mark.parametrize("change", [-1, 5, 40])
def test_a_cookie_with_a_changed_letter_is_refused(reader: Reader, change: int) -> None:
    cookie = reader.http.cookies["nightshift_session"]
    reader.http.cookies.clear()
    letter = "A" if cookie[change] != "A" else "Q"
    place = change % len(cookie)
    changed = cookie[:place] + letter + cookie[place + 1 :]
    assert reader.get("/", cookie=f"nightshift_session={changed}").status_code == 303


def test_a_script_without_a_session_is_told_to_load_the_form(installation: Installation) -> None:
    with stranger_at(installation.url) as stranger:
        answer = stranger.get("/", **{"hx-request": "true"})
        assert (answer.status_code, answer.headers["hx-redirect"]) == (204, "/sign-in")


def test_a_session_opens_no_route_of_programs(reader: Reader) -> None:
    assert reader.get("/v1/jobs").status_code == 401


def test_a_key_in_a_header_opens_no_page(tenant: Tenant) -> None:
    assert tenant.http.get("/").status_code == 303


@pytest.mark.parametrize("token", ["", "0" * 64, "ä"])
def test_a_form_without_the_token_of_the_session_changes_nothing(
    tenant: Tenant, reader: Reader, token: str
) -> None:
    job_id = tenant.submit()
    for path in (f"/jobs/{job_id}/cancel", "/sign-out"):
        assert reader.post(path, token=token).status_code == 403
    assert tenant.job(job_id)["state"] == "queued"


def test_the_token_of_another_session_is_refused(
    tenant: Tenant, stranger: Tenant, reader: Reader
) -> None:
    job_id = tenant.submit()
    with reader_of(stranger) as other:
        token = other.token("/pools")
    assert reader.post(f"/jobs/{job_id}/cancel", token=token).status_code == 403


def test_signing_in_needs_the_form_that_this_browser_was_given(tenant: Tenant) -> None:
    with stranger_at(tenant.installation.url) as browser:
        answer = browser.http.post("/sign-in", data={"key": tenant.key, "form_token": "0" * 64})
    assert answer.status_code == 403


def test_every_page_forbids_what_is_inline_or_from_elsewhere(
    tenant: Tenant, reader: Reader
) -> None:
    for path in (*PAGES, f"/jobs/{tenant.submit()}", "/sign-in", "/jobs/none", "/?state=odd"):
        answer = reader.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["cache-control"] == "no-store"
        found = Links(answer.text)
        assert not found.inline
        assert all(each.startswith("/") for each in (*found.files, *found.forms, *found.links[1:]))


def test_texts_of_users_are_shown_and_not_run(
    tenant: Tenant, reader: Reader, fake_workers: FakeWorkers
) -> None:
    job_id = tenant.submit(name=EVIL[:120])
    fake_workers.take(job_id).fail(code="corpus_unreadable", message=EVIL)
    for path in ("/", f"/jobs/{job_id}", f"/jobs/{job_id}/delete", f"/?text={quote(EVIL[:20])}"):
        answer = reader.get(path)
        assert "<script>alert" not in answer.text
        assert "<img src=x" not in answer.text
        assert "&lt;script&gt;alert(1)" in answer.text


def test_a_page_shows_no_other_project(stranger: Tenant, reader: Reader) -> None:
    theirs = stranger.submit(name="theirs")
    assert theirs not in reader.get("/").text
    for path in (f"/jobs/{theirs}", f"/jobs/{theirs}/cancel", f"/jobs/{theirs}/results"):
        assert reader.get(path).status_code == 404
    assert reader.post(f"/jobs/{theirs}/cancel").status_code == 404
    assert reader.get(f"/jobs/{theirs}/events").status_code == 404


@pytest.fixture
def four(tenant: Tenant, fake_workers: FakeWorkers) -> dict[str, str]:
    """Jobs by name: one queued, one paused, one failed, one that trains."""
    made = {
        "queued": tenant.submit(name="Fresh news"),
        "paused": tenant.submit(name="old news", model="/models/other"),
        "failed": tenant.submit(kind="embed", name="vectors"),
        "trains": tenant.train(name="nightly"),
    }
    tenant.http.post(f"/v1/jobs/{made['paused']}/pause")
    fake_workers.take(made["failed"]).fail(code="corpus_empty", message="there are no rows")
    return made


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", {"queued", "paused", "failed", "trains"}),
        ("state=failed", {"failed"}),
        ("state=&kind=&model=&text=&since=&until=", {"queued", "paused", "failed", "trains"}),
        ("kind=finetune", {"trains"}),
        ("text=NEWS", {"queued", "paused"}),
        ("text=NEWS&state=paused", {"paused"}),
        ("text=%25", set()),
        ("model=other", {"paused"}),
        ("model=NEWS", {"trains"}),
        ("since=2020-01-01", {"queued", "paused", "failed", "trains"}),
        ("since=2120-01-01", set()),
        ("until=2020-01-01", set()),
    ],
)
def test_filters_of_the_address_leave_what_they_say(
    reader: Reader, four: dict[str, str], query: str, shown: set[str]
) -> None:
    text = reader.get(f"/?{query}").text
    assert {name for name, job_id in four.items() if job_id in text} == shown


def test_a_job_is_found_by_the_beginning_of_its_id(reader: Reader, four: dict[str, str]) -> None:
    text = reader.get(f"/?text={four['paused'][:20]}").text
    assert four["paused"] in text
    assert four["failed"] not in text


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("state=odd", "state must be one of queued, planning"),
        ("kind=odd", "kind must be one of classify"),
        ("since=yesterday", "since must be a day such as 2026-11-30"),
        ("sate=failed", "no such field in the query"),
        ("after=job_none", "to list after"),
    ],
)
def test_a_filter_that_cannot_be_says_so_on_a_page(reader: Reader, query: str, words: str) -> None:
    answer = reader.get(f"/?{query}")
    assert answer.status_code in (400, 404, 422)
    assert answer.headers["content-type"].startswith("text/html")
    assert words in answer.text


def test_pages_of_the_list_follow_each_other(tenant: Tenant, reader: Reader) -> None:
    file = tenant.upload()
    made = [tenant.submit(corpus={"file": file}, name="many") for _ in range(53)]
    first = reader.get("/?text=many").text
    older = next(each for each in Links(first).links if "after=" in each)
    assert "text=many" in older
    second = reader.get(older).text
    assert [job_id for job_id in made if f"/jobs/{job_id}" in first] == made[3:]
    assert [job_id for job_id in made if f"/jobs/{job_id}" in second] == made[:3]


def test_a_job_says_why_it_waits_and_what_to_do(tenant: Tenant, reader: Reader) -> None:
    job_id = tenant.submit(name="lonely")
    reason = tenant.job(job_id)["waiting_reason"]
    assert reason in reader.text("/")
    text = reader.text(f"/jobs/{job_id}")
    (first, *_) = tenant.http.get(f"/v1/jobs/{job_id}/why").json()["findings"]
    assert reason in text
    assert first["sentence"] in text
    assert first["command"] in text


def test_a_job_shows_labels_error_rows_and_results(
    tenant: Tenant, reader: Reader, fake_workers: FakeWorkers
) -> None:
    job_id = tenant.submit()
    hands = fake_workers.take(job_id)
    hands.plan([20, 20])
    hands.work(0, failed=3)
    text = reader.text(f"/jobs/{job_id}")
    assert "20 of 40 rows" in text
    assert "good" in text
    assert "empty_text" in text
    assert "row 17, line 18" in text
    rows = reader.get(f"/jobs/{job_id}/results").text
    assert rows.count("<tr>") == 21
    assert "the text is empty" in rows
    assert f"/jobs/{job_id}/results?after=19" in rows


def test_progress_streams_to_the_page_until_the_job_has_ended(
    tenant: Tenant, reader: Reader, fake_workers: FakeWorkers
) -> None:
    job_id = tenant.submit()
    hands = fake_workers.take(job_id)
    hands.plan([2])
    with reader.http.stream("GET", f"/jobs/{job_id}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        assert any("0 of 2 rows" in line for line in lines)
        hands.work(0)
        hands.finish()
        assert any(line == "event: over" for line in lines)
    end = {"last-event-id": _last_event(tenant, job_id)}
    assert reader.get(f"/jobs/{job_id}/events", **end).status_code == 204


def _last_event(tenant: Tenant, job_id: str) -> str:
    text = tenant.http.get(f"/v1/jobs/{job_id}/events").text
    return str(re.findall(r"^id: (\S+)$", text, re.MULTILINE)[-1])


@pytest.mark.parametrize(
    ("action", "before", "after"),
    [
        ("cancel", "queued", {"cancelling", "cancelled"}),
        ("pause", "queued", {"paused"}),
        ("resume", "paused", {"queued"}),
        ("retry", "failed", {"queued", "planning", "running"}),
        ("delete", "failed", {"gone"}),
    ],
)
def test_an_action_asks_and_is_then_done(
    tenant: Tenant, reader: Reader, four: dict[str, str], action: str, before: str, after: set[str]
) -> None:
    path = f"/jobs/{four[before]}/{action}"
    assert path in Links(reader.get(f"/jobs/{four[before]}").text).links
    asked = reader.get(path)
    assert path in Links(asked.text).forms
    assert tenant.job(four[before])["state"] == before
    assert reader.post(path).status_code == 303
    answer = tenant.http.get(f"/v1/jobs/{four[before]}")
    assert (answer.json()["state"] if answer.is_success else "gone") in after


def test_an_action_that_cannot_be_done_says_why(tenant: Tenant, reader: Reader) -> None:
    job_id = tenant.submit()
    assert f"/jobs/{job_id}/delete" not in Links(reader.get(f"/jobs/{job_id}").text).links
    answer = reader.post(f"/jobs/{job_id}/delete")
    assert answer.status_code == 409
    assert "delete it when it has ended" in answer.text


def test_a_dry_run_counts_and_says_which_are_left_and_why(
    reader: Reader, tenant: Tenant, four: dict[str, str]
) -> None:
    text = reader.text("/selection/cancel?text=e")
    assert "Cancel 2 of 3 jobs?" in text  # "vectors" has failed
    assert "it has failed" in text
    assert "dry run" in text
    assert {name: tenant.job(job_id)["state"] for name, job_id in four.items()} == {
        "queued": "queued",
        "paused": "paused",
        "failed": "failed",
        "trains": "queued",
    }


def _fields(text: str) -> dict[str, str]:
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', text))


def test_all_that_match_are_acted_on_and_what_comes_later_is_not(
    tenant: Tenant, reader: Reader
) -> None:
    file = tenant.upload()
    made = [tenant.submit(corpus={"file": file}, name=f"day {i}") for i in range(60)]
    other = tenant.submit(corpus={"file": file}, name="other")
    form = _fields(reader.get("/selection/cancel?text=day").text)
    late = tenant.submit(corpus={"file": file}, name="day 61")
    answer = reader.http.post("/selection/cancel", data=form)
    while "Go on" in answer.text:
        answer = reader.http.post("/selection/cancel", data=_fields(answer.text))
    assert "60 of 60 jobs cancelled" in answer.text
    states = {job_id: tenant.job(job_id)["state"] for job_id in (*made, other, late)}
    assert {states[job_id] for job_id in made} == {"cancelling"}
    assert states[other] == states[late] == "queued"


def test_a_selection_of_another_session_is_refused(reader: Reader, four: dict[str, str]) -> None:
    form = _fields(reader.get("/selection/cancel?text=news").text)
    assert reader.http.post("/selection/cancel", data={**form, "form_token": ""}).status_code == 403
    assert four["queued"] in reader.get("/?state=queued").text


SCHEDULE = {
    "name": "every-night",
    "timing": {"cron": ["0 2 * * *"], "time_zone": "Europe/Berlin"},
    "jobs": [
        {
            "spec": {
                "kind": "classify",
                "model": "/models/tiny",
                "corpus": {"uri": "file:///allowed/a.jsonl"},
            }
        }
    ],
}


def test_a_schedule_shows_its_words_its_next_fires_and_can_be_fired(
    tenant: Tenant, reader: Reader
) -> None:
    answer = tenant.http.post("/v1/schedules", json=SCHEDULE)
    assert answer.is_success, answer.text
    schedule = answer.json()
    assert "at 02:00 every day, Europe/Berlin time" in reader.text("/schedules")
    path = f"/schedules/{schedule['id']}"
    assert reader.text(path).count(" 02:00:00") == 5
    for action, words in (("trigger", "trigger"), ("pause", "paused"), ("resume", "active")):
        assert reader.post(f"{path}/{action}").status_code == 303
        assert words in reader.text(path)
    assert len(tenant.http.get(f"/v1/schedules/{schedule['id']}/fires").json()["data"]) == 1


def test_pools_show_who_is_there_and_what_was_refused(
    reader: Reader, fake_workers: FakeWorkers
) -> None:
    engine = {"model": "news@3", "kind": "classify", "sharing": "padded"}
    fake_workers.worker("cpu-1@here", slot=0, engines=[engine])
    fake_workers.refuse("d1")
    text = reader.text("/pools")
    assert "cpu-1@here" in text
    assert "news@3" in text
    assert "it has no signature" in text


def test_an_unknown_model_and_schedule_are_pages_that_say_so(reader: Reader) -> None:
    for path in ("/models/none", "/schedules/none", "/jobs/none", "/jobs/a%20b"):
        answer = reader.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("text/html")


def test_no_page_weighs_more_than_it_may(tenant: Tenant, reader: Reader) -> None:
    file = tenant.upload()
    for _ in range(55):
        tenant.submit(corpus={"file": file}, name="w" * 100)
    job_id = tenant.train(name="curves")
    for path in (*PAGES, f"/jobs/{job_id}", f"/jobs/{tenant.submit()}"):
        page = reader.get(path)
        files = Links(page.text).files
        weight = len(page.content) + sum(len(reader.get(file).content) for file in set(files))
        assert weight < HEAVIEST, path


def test_files_of_other_projects_have_their_licences_beside_them() -> None:
    folder = Path(__file__).parents[3] / "api/server/pages/static/vendor"
    named = (folder / "README.md").read_text()
    for file in folder.iterdir():
        assert file.name in named or file.name == "README.md"
    assert {file.name.split(".")[0] for file in folder.glob("*.js")} == {
        file.name.split(".")[0] for file in folder.glob("*.LICENSE")
    }


@pytest.fixture(scope="module")
def read_only(
    fresh_database: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    running = start_installation(
        fresh_database(),
        tmp_path_factory.mktemp("read-only"),
        NIGHTSHIFT_PAGE_READ_ONLY="true",
        NIGHTSHIFT_PUBLIC_URL="https://jobs.example.com",
    )
    yield running
    running.stop()


def test_a_read_only_page_refuses_on_the_server_and_shows_no_buttons(
    read_only: Installation,
) -> None:
    with new_tenant(read_only) as tenant, stranger_at(read_only.url) as reader:
        cookie = reader.sign_in(tenant.key)  # httpx keeps no secure cookie of plain HTTP
        assert cookie.status_code == 403
    with new_tenant(read_only) as tenant, stranger_at(read_only.url) as reader:
        visit = reader.get("/sign-in").headers["set-cookie"]
        assert "Secure" in visit
        token = re.search(
            r'form_token" value="(\w+)"', reader.get("/sign-in", cookie=_pair(visit)).text
        )
        assert token is not None
        signed_in = reader.http.post(
            "/sign-in",
            data={"form_token": token[1], "key": tenant.key},
            headers={"cookie": _pair(visit)},
        )
        assert signed_in.status_code == 303
        session = {"cookie": _pair(signed_in.headers["set-cookie"])}
        job_id = tenant.submit()
        page = reader.get(f"/jobs/{job_id}", **session)
        assert "read-only" in page.text
        assert Links(page.text).forms == ["/sign-out"]
        token = re.search(r'form_token" value="(\w+)"', page.text)
        assert token is not None
        for path in (f"/jobs/{job_id}/cancel", "/selection/cancel"):
            answer = reader.http.post(path, data={"form_token": token[1]}, headers=session)
            assert answer.status_code in (403, 400)
            assert "read-only" in answer.text
        assert tenant.job(job_id)["state"] == "queued"


def _pair(cookie: str) -> str:
    return cookie.partition(";")[0]


def test_a_form_that_is_too_large_is_refused(installation: Installation) -> None:
    answer = httpx.post(f"{installation.url}/sign-in", data={"key": "k" * 2**21})
    assert answer.status_code == 413
    assert json.loads(answer.text)["error"]["code"] == "too_large"
