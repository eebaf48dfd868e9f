"""`nightshift projects` and `nightshift keys`."""

from __future__ import annotations

import json

from tests.api.cli.conftest import Run
from tests.api.server.installation import Tenant


def test_a_key_is_made_listed_rotated_and_revoked(run: Run, tenant: Tenant) -> None:
    made = run("keys", "create", "ci", "--scope", "read", "--expires-in", "90d")
    assert made.code == 0, made.err
    first, secret = made.out.splitlines()
    key = first.split()[0]
    assert first == f"{key} acts for {tenant.project}: read"
    assert secret.startswith("key ns_")
    assert key in run("keys", "list").out
    shown = run("keys", "show", key).out
    assert "begins with" in shown
    assert secret.split()[1] not in shown
    rotated = run("keys", "rotate", key, "--overlap", "2h").out.splitlines()
    assert rotated[0].endswith(f"replaces {key}")
    assert rotated[1] != secret
    assert run("keys", "revoke", key).out == f"{key} is revoked\n"
    assert json.loads(run("keys", "show", key, "--json").out)["state"] == "revoked"


def test_what_my_own_key_may_do(run: Run, tenant: Tenant) -> None:
    assert run("keys", "current").out.endswith(
        f"acts for {tenant.project}: read, submit, admin, operate\n"
    )


def test_a_project_is_made_shown_and_changed(run: Run, tenant: Tenant) -> None:
    project = f"{tenant.project}-c"
    made = run("projects", "create", project, "--name", "Team C")
    assert made.out.startswith(f"{project} is made; its first key: `nightshift keys create")
    assert run("keys", "create", "--project", project).code == 0
    assert run("projects", "edit", project, "--weight", "3").out == f"{project} is changed\n"
    assert json.loads(run("projects", "show", project, "--json").out)["weight"] == 3
    limited = run("projects", "edit", project, "--jobs-in-flight", "5", "--pool", "cpu")
    assert limited.out == f"{project} is changed\n"
    run("projects", "edit", project, "--upload-bytes", "90")
    shown = run("projects", "show", project).out
    assert "Team C" in shown
    assert "jobs_in_flight 5, upload_bytes 90, pools ['cpu']" in shown
    run("projects", "edit", project, "--no-limits")
    assert "pools" not in run("projects", "show", project).out
    assert project in run("projects", "list", "--limit", "1000").out
    assert "nothing is changed" in run("projects", "edit", project).err
