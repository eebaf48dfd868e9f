"""What the work of pools wants, over HTTP."""

from __future__ import annotations

from tests.api.server.conftest import FakeWorkers
from tests.api.server.installation import Tenant


def test_a_pool_says_how_many_slots_its_work_wants(
    tenant: Tenant, fake_workers: FakeWorkers
) -> None:
    job_id = tenant.submit(pool="demanding", deadline_seconds=25)
    hands = fake_workers.take(job_id)
    hands.plan([1, 1, 1, 1, 1])
    found = tenant.http.get("/v1/pools/demanding/demand").json()
    assert found["object"] == "pool.demand"
    assert (found["chunks"], found["jobs"], found["chunk_seconds"]) == (5, 1, 10.0)
    assert 2 <= found["slots_wanted"] == found["slots_for_deadlines"] <= 3  # 50 s within 25
    assert (found["slots"], found["slots_busy"], found["hosts_wanted"]) == (0, 0, 0)
    listed = tenant.http.get("/v1/pools").json()["data"]
    assert "demanding" in {pool["pool"] for pool in listed}


def test_a_pool_that_has_only_anothers_work_is_not_listed(tenant: Tenant, stranger: Tenant) -> None:
    stranger.submit(pool="their-secret")
    listed = {pool["pool"] for pool in tenant.http.get("/v1/pools").json()["data"]}
    assert "their-secret" not in listed
    theirs = {pool["pool"] for pool in stranger.http.get("/v1/pools").json()["data"]}
    assert "their-secret" in theirs


def test_work_without_a_deadline_should_end_within_the_time_that_is_asked_for(
    tenant: Tenant, fake_workers: FakeWorkers
) -> None:
    job_id = tenant.submit(pool="patient")
    fake_workers.take(job_id).plan([1] * 12)
    for seconds, slots in ((600, 1), (60, 2), (10, 12)):
        query = {"drain_seconds": seconds}
        found = tenant.http.get("/v1/pools/patient/demand", params=query).json()
        assert (found["drain_seconds"], found["slots_wanted"]) == (seconds, slots)


def test_a_pool_that_is_not_known_wants_nothing_and_a_name_must_be_one(tenant: Tenant) -> None:
    assert tenant.http.get("/v1/pools/nowhere/demand").json()["slots_wanted"] == 0
    refused = tenant.http.get("/v1/pools/No%20Name/demand")
    assert refused.status_code in {400, 404}
