"""``nightshift jobs why``: what it prints, and that its answer is the API's."""

from __future__ import annotations

import json

from tests.api.cli.conftest import Run
from tests.api.server.conftest import FakeWorkers
from tests.api.server.installation import Tenant


def test_a_job_that_waits_says_why_and_what_to_do(run: Run, tenant: Tenant) -> None:
    job_id = tenant.submit()
    shown = run("jobs", "why", job_id)
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert lines[0] == f"{job_id} is queued and does not move"
    assert lines[1].strip() == tenant.job(job_id)["waiting_reason"]
    assert lines[2].strip() == "start a control process: python -m workers.processes control"
    assert lines[3].startswith("time since it was accepted: ")
    assert "100.0%  it waited for a planner" in lines[4]


def test_a_paused_job_names_the_key_that_paused_it(run: Run, tenant: Tenant) -> None:
    job_id = tenant.submit()
    run("jobs", "pause", job_id)
    found = json.loads(run("jobs", "why", job_id, "--json").out)
    (finding,) = found["findings"]
    assert (finding["cause"], finding["command"]) == ("paused", f"nightshift jobs resume {job_id}")
    assert " UTC by key_" in finding["sentence"]
    assert not found["moves"]
    assert found["seconds"] == sum(part["seconds"] for part in found["time"])


def test_a_job_that_has_ended_says_how_and_shows_no_text_of_a_row(
    run: Run, tenant: Tenant, fake_workers: FakeWorkers
) -> None:
    job_id = tenant.submit(max_failed=1)
    hands = fake_workers.take(job_id)
    hands.plan([3])
    hands.work(0, failed=2)
    assert hands.end_failed()
    shown = run("jobs", "why", job_id).out
    assert f"{job_id} is failed\n" in shown
    assert "2 rows failed (empty_text 2), more than it allows (too_many_failed_rows)" in shown
    assert f"nightshift jobs retry {job_id}" in shown
    assert "the text is empty" not in shown
