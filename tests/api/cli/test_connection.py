"""Which API a command finds, and what it says when there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.cli.conftest import Run
from tests.api.server.installation import Tenant


@pytest.fixture
def bare(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line with nothing in its environment but an empty state folder."""
    monkeypatch.delenv("NIGHTSHIFT_API_URL")
    monkeypatch.delenv("NIGHTSHIFT_API_KEY")
    return run


def _write_state(home: Path, *, url: str, key: str) -> None:
    home.mkdir(exist_ok=True)
    (home / "stack.json").write_text(json.dumps({"api_url": url}))
    (home / "key").write_text(f"{key}\n")


def test_without_a_stack_it_says_to_start_one(bare: Run) -> None:
    ran = bare("jobs", "list")
    assert ran.code == 3
    assert "start one with `nightshift up`" in ran.err
    assert ran.err.count("\n") == 1


def test_the_stack_of_the_state_folder_is_found(bare: Run, tenant: Tenant, tmp_path: Path) -> None:
    _write_state(tmp_path / "state", url=tenant.installation.url, key=tenant.key)
    assert bare("jobs", "list").code == 0


def test_the_state_folders_key_goes_to_its_own_api_alone(
    bare: Run, tenant: Tenant, tmp_path: Path
) -> None:
    _write_state(tmp_path / "state", url="http://127.0.0.1:9", key=tenant.key)
    ran = bare("jobs", "list", "--api", tenant.installation.url)
    assert ran.code == 2
    assert "NIGHTSHIFT_API_KEY must hold an API key" in ran.err


def test_an_api_that_does_not_answer_is_told_within_seconds(run: Run) -> None:
    ran = run("jobs", "list", "--api", "http://127.0.0.1:9")
    assert ran.code == 3
    assert "http://127.0.0.1:9 does not answer" in ran.err
    assert ran.err.count("\n") == 1


def test_a_wrong_key_says_what_to_set(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_API_KEY", "wrong")
    ran = run("jobs", "list")
    assert ran.code == 2
    assert "set NIGHTSHIFT_API_KEY" in ran.err


@pytest.mark.parametrize("url", ["localhost:8750", "ftp://here", "http://[", "http://a b"])
def test_an_address_that_is_no_url_is_refused(run: Run, url: str) -> None:
    ran = run("jobs", "list", "--api", url)
    assert ran.code in (2, 3)
    assert ran.err.count("\n") == 1


def test_help_and_bad_usage_have_their_exit_codes(run: Run) -> None:
    assert run("--help").code == run().code == run("jobs", "--help").code == 0
    for arguments in (["jobs"], ["nothing"], ["jobs", "show"], ["jobs", "list", "--limit", "0"]):
        ran = run(*arguments)
        assert (ran.code, ran.err.count("\n")) == (2, 1), arguments


def test_status_without_a_stack_ends_with_1(bare: Run) -> None:
    ran = bare("status")
    assert (ran.code, ran.out) == (1, "")
    assert "start it with `nightshift up`" in ran.err


def test_down_without_a_stack_is_no_error(bare: Run) -> None:
    assert bare("down").out == "nothing was running\n"


def test_a_reader_that_has_enough_ends_the_command_without_a_trace(
    run: Run, tenant: Tenant
) -> None:
    for _ in range(3):
        tenant.submit()
    assert run("jobs", "list").code == 0
    command = f"{sys.executable} -m api.cli jobs list --json | head -1"
    ended = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, check=False, timeout=60
    )
    assert "Traceback" not in ended.stderr
