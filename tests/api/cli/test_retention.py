"""`nightshift retention`, `jobs keep`, `jobs retention` and `storage`."""

from __future__ import annotations

import json

import pytest

from tests.api.cli.conftest import FakeWorkers, Run
from tests.api.server.installation import Tenant


def ended(tenant: Tenant, fake_workers: FakeWorkers) -> str:
    job_id = tenant.submit()
    hands = fake_workers.take(job_id)
    hands.plan([1])
    hands.work(0)
    hands.finish()
    return job_id


def test_periods_are_set_one_by_one_and_given_back(run: Run) -> None:
    assert run("retention", "set", "--jobs", "90d", "--files", "forever").code == 0
    assert run("retention", "set", "--parts", "36h").code == 0
    found = json.loads(run("retention", "show", "--json").out)
    assert found["project"] == {"files": "forever", "jobs": "90d", "parts": "1d12h"}
    run("retention", "set", "--jobs", "default")
    shown = run("retention", "show").out
    assert "jobs                   forever  the installation" in shown
    assert "parts                  1d12h    the project" in shown


def test_what_is_no_period_is_refused_before_anything_is_sent(run: Run) -> None:
    refused = run("retention", "set", "--jobs", "soon")
    assert refused.code == 2
    assert "such as 12h or 30d, `forever` or `default`, not 'soon'" in refused.err
    assert run("retention", "set").err.startswith("nightshift: nothing is changed")


def test_a_job_is_kept_and_shown(run: Run, tenant: Tenant, fake_workers: FakeWorkers) -> None:
    job_id = ended(tenant, fake_workers)
    run("retention", "set", "--jobs", "90d")
    assert run("jobs", "keep", job_id).out == f"{job_id} is kept\n"
    refused = run("jobs", "delete", job_id)
    assert (refused.code, f"nightshift jobs keep {job_id} --off" in refused.err) == (2, True)
    assert "nothing of it goes" in run("jobs", "retention", job_id).err
    run("jobs", "keep", job_id, "--off")
    shown = run("jobs", "retention", job_id, "--parts", "7d").out
    assert "parts" in shown
    assert shown.count("goes 20") == 2


def test_an_operator_sees_and_removes_garbage(
    run: Run,
    tenant: Tenant,
    fake_workers: FakeWorkers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id = ended(tenant, fake_workers)
    installation = tenant.installation
    monkeypatch.setenv("NIGHTSHIFT_DATABASE_URL", installation.database_url)
    monkeypatch.setenv("NIGHTSHIFT_OBJECT_STORE_URL", installation.objects.as_uri())
    late = f"jobs/{job_id}/parts/000000000000-1-9.parquet"
    installation.store.put(late, b"late")
    report = run("storage", "report", "--grace", "0s")
    assert report.code == 1
    assert late in report.out
    assert "chunks as rows: " in report.out
    dry = json.loads(run("storage", "collect", "--dry-run", "--grace", "0s", "--json").out)
    assert (late in dry["garbage"]["keys"], dry["removed"]) == (True, 0)
    assert "objects without a row: 0" in run("storage", "collect").out, "it is too young"
    assert "were removed" in run("storage", "collect", "--grace", "0s").out
    assert not installation.store.exists(late)
    usage = json.loads(run("storage", "usage", "--json").out)
    assert {"kind": "files", "objects": 1, "bytes": 16} in usage["data"]


def test_without_an_installation_the_line_says_what_to_set(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NIGHTSHIFT_DATABASE_URL", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    refused = run("storage", "report")
    assert refused.code == 2
    assert "NIGHTSHIFT_DATABASE_URL" in refused.err
