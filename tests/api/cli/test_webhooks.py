"""`nightshift webhooks`: from its creation to the end of an endpoint."""

from __future__ import annotations

import json

from tests.api.cli.conftest import FakeWorkers, Run
from tests.api.server.installation import Tenant

URL = "https://hooks.example.com/nightshift"


def test_an_endpoint_is_made_shown_rotated_and_deleted(run: Run) -> None:
    made = run("webhooks", "create", URL, "--event", "job.failed", "--name", "mine")
    assert made.code == 0, made.err
    first, secret = made.out.splitlines()
    endpoint = first.split()[0]
    assert first == f"{endpoint} receives job.failed"
    assert secret.startswith("secret whsec_")
    assert f"{endpoint}  mine  {URL}  active" in run("webhooks", "list").out
    shown = run("webhooks", "show", endpoint).out
    assert "sends to" in shown
    assert secret.split()[1] not in shown
    rotated = run("webhooks", "rotate", endpoint, "--overlap", "2h")
    assert rotated.out.startswith(f"{endpoint} signs with a new secret, those before it are valid")
    assert rotated.out.splitlines()[1] != secret
    ended = run("webhooks", "rotate", endpoint, "--overlap", "0")
    assert ended.out.startswith(f"{endpoint} signs with a new secret, alone")
    edited = run("webhooks", "edit", endpoint, "--every-event")
    assert edited.out == f"{endpoint} receives every event\n"
    assert run("webhooks", "delete", endpoint).out == f"{endpoint} is deleted\n"
    assert run("webhooks", "show", endpoint).code == 2


def test_deliveries_are_listed_and_sent_again(
    run: Run, tenant: Tenant, fake_workers: FakeWorkers
) -> None:
    endpoint = json.loads(run("webhooks", "create", URL, "--json").out)["id"]
    job_id = tenant.submit()
    fake_workers.take(job_id).fail(code="model_unreadable", message="no model")
    listed = run("webhooks", "deliveries", endpoint)
    assert job_id in listed.out
    assert "job.failed" in listed.out
    (delivery,) = json.loads(run("webhooks", "deliveries", endpoint, "--json").out)
    again = run("webhooks", "resend", endpoint, str(delivery["id"]))
    assert again.out == f"{delivery['event']} is sent again, delivery {delivery['id']}\n"
    enabled = run("webhooks", "enable", endpoint, "--skip-waiting")
    assert enabled.out == f"{endpoint} is enabled; 0 deliveries wait for it\n"


def test_a_test_that_is_not_taken_has_exit_code_1(run: Run) -> None:
    endpoint = json.loads(run("webhooks", "create", URL, "--json").out)["id"]
    tested = run("webhooks", "test", endpoint, "--wait", "0")
    assert tested.code == 1
    assert tested.out == f"{endpoint} did not take it: it was not tried yet\n"


def test_a_place_is_needed_and_only_one(run: Run) -> None:
    for arguments in ((), (URL, "--email", "a@example.com")):
        refused = run("webhooks", "create", *arguments)
        assert refused.code == 2
        assert "either a URL or --email" in refused.err
    assert "nothing is changed" in run("webhooks", "edit", "we_1").err
