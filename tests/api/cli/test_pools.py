"""`nightshift pools`."""

from __future__ import annotations

import json

from tests.api.cli.conftest import FakeWorkers, Run
from tests.api.server.installation import Tenant


def test_pools_are_listed_with_what_their_work_wants(
    run: Run, tenant: Tenant, fake_workers: FakeWorkers
) -> None:
    job_id = tenant.submit(pool="listed")
    fake_workers.take(job_id).plan([1] * 120)
    (row,) = [line for line in run("pools", "list").out.splitlines() if line.startswith("listed")]
    assert row.split() == ["listed", "0", "0", "2", "0", "120", "0", "0", "0"]
    found = json.loads(run("pools", "demand", "listed", "--drain-seconds", "60", "--json").out)
    assert found["slots_wanted"] == 20
    shown = run("pools", "demand", "listed").out
    assert "slots wanted    2\n" in shown
    assert "chunks left     120 of 1 jobs\n" in shown


def test_what_is_no_name_of_a_pool_is_refused(run: Run) -> None:
    refused = run("pools", "demand", "No Name")
    assert refused.code == 2
    assert "such as gpu, not 'No Name'" in refused.err
