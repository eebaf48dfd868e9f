"""``nightshift doctor``: what it prints and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from api.stack import ports
from tests.api.cli.conftest import Run
from tests.api.server.installation import Tenant

SERVERS = (
    *("NIGHTSHIFT_DATABASE_URL", "DATABASE_URL", "NIGHTSHIFT_REDIS_URL", "REDIS_URL"),
    "NIGHTSHIFT_OBJECT_STORE_URL",
)


@pytest.fixture(autouse=True)
def no_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable names a server but those of the test."""
    for name in SERVERS:
        monkeypatch.delenv(name, raising=False)


def found(run: Run) -> dict[str, str]:
    """Status by check."""
    return {each["check"]: each["status"] for each in json.loads(run("doctor", "--json").out)}


def test_on_the_machine_of_a_client_only_the_api_is_checked(run: Run, tenant: Tenant) -> None:
    ran = run("doctor")
    assert ran.code == 0
    assert found(run) == {"settings": "warning", "api": "ok", "api key": "ok", "api clock": "ok"}
    assert f"ok       api        {tenant.installation.url} answers" in ran.out
    assert tenant.key not in ran.out


def test_a_key_that_the_api_does_not_know_is_an_error(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_API_KEY", "ns-of-no-one")
    ran = run("doctor")
    assert ran.code == 1
    assert "the API does not know this key" in ran.out
    assert "ns-of-no-one" not in ran.out


def test_an_api_that_does_not_answer_is_an_error(run: Run) -> None:
    ran = run("doctor", "--api", f"http://127.0.0.1:{ports.choose()}")
    assert ran.code == 1
    assert "does not answer" in ran.out


def test_the_servers_are_those_of_the_environment(
    run: Run, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation = tenant.installation
    monkeypatch.setenv("NIGHTSHIFT_DATABASE_URL", installation.database_url)
    monkeypatch.setenv("NIGHTSHIFT_REDIS_URL", f"redis://127.0.0.1:{ports.choose()}/0")
    monkeypatch.setenv("NIGHTSHIFT_OBJECT_STORE_URL", installation.objects.as_uri())
    statuses = found(run)
    names = ("settings", "postgres", "migrations", "redis", "objects", "control", "api")
    assert [statuses[name] for name in names] == [
        *("ok", "ok", "ok", "error", "ok", "error", "ok"),
    ]
    ran = run("doctor")
    assert ran.code == 1
    assert installation.database_url.split(":")[2].partition("@")[0] not in ran.out


def test_the_servers_are_else_those_of_the_state_folder(
    run: Run, tenant: Tenant, tmp_path: Path
) -> None:
    installation = tenant.installation
    home = tmp_path / "state"
    home.mkdir(mode=0o755)
    record = {
        "database_url": installation.database_url,
        "redis_url": f"redis://127.0.0.1:{ports.choose()}/0",
        "object_store_url": installation.objects.as_uri(),
    }
    (home / "stack.json").write_text(json.dumps(record))
    statuses = found(run)
    assert (statuses["postgres"], statuses["redis"]) == ("ok", "error")
    assert statuses["state folder"] == "warning"


def test_a_setting_that_cannot_be_read_is_named_without_its_value(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_LEASE_SECONDS", "a-secret-by-mistake")
    ran = run("doctor")
    assert ran.code == 1
    assert "NIGHTSHIFT_LEASE_SECONDS cannot be read" in ran.out
    assert "a-secret-by-mistake" not in ran.out
