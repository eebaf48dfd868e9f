"""Servers by name: which one a command goes to, and how their keys are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.api.cli.conftest import Run
from tests.api.server.installation import Tenant


@pytest.fixture
def config(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The config file, which is not there, and nothing in the environment that ``run`` sets."""
    del run
    for name in ("NIGHTSHIFT_API_URL", "NIGHTSHIFT_API_KEY", "NIGHTSHIFT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "nightshift" / "config.toml"


@pytest.fixture
def lab(run: Run, config: Path, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> str:
    assert not config.exists()
    monkeypatch.setenv("NIGHTSHIFT_API_KEY", tenant.key)
    assert run("profiles", "set", "lab", tenant.installation.url).code == 0
    monkeypatch.delenv("NIGHTSHIFT_API_KEY")
    return "lab"


def test_a_profile_has_an_address_and_a_key_that_only_its_owner_reads(
    run: Run, config: Path, lab: str, tenant: Tenant
) -> None:
    assert config.stat().st_mode & 0o777 == 0o600
    assert run("--profile", lab, "jobs", "list").code == 0
    (listed,) = json.loads(run("profiles", "list", "--json").out)
    assert listed == {"name": "lab", "url": tenant.installation.url, "key": True, "default": False}
    assert tenant.key not in run("profiles", "list").out


def test_without_a_name_the_default_profile_is_used(
    run: Run, lab: str, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("jobs", "list").code == 3  # no stack runs here
    monkeypatch.setenv("NIGHTSHIFT_PROFILE", lab)
    assert run("jobs", "list").code == 0
    monkeypatch.setenv("NIGHTSHIFT_API_KEY", tenant.key)
    assert run("profiles", "set", "lab", tenant.installation.url, "--default").code == 0
    monkeypatch.delenv("NIGHTSHIFT_API_KEY")
    monkeypatch.delenv("NIGHTSHIFT_PROFILE")
    assert run("jobs", "list").code == 0
    assert run("profiles", "delete", "lab").out == "lab is forgotten\n"
    assert run("jobs", "list").code == 3


def test_the_environment_wins_and_a_named_profile_is_told(
    run: Run, lab: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_API_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("NIGHTSHIFT_API_KEY", "other")
    ran = run("--profile", lab, "jobs", "list")
    assert ran.code == 3
    assert "NIGHTSHIFT_API_URL is set and wins over --profile lab" in ran.err


@pytest.mark.usefixtures("lab")
def test_the_key_of_a_profile_goes_to_its_own_address_alone(run: Run) -> None:
    ran = run("jobs", "list", "--api", "http://127.0.0.1:9")
    assert (ran.code, "NIGHTSHIFT_API_KEY must hold an API key" in ran.err) == (2, True)


def test_the_address_may_stand_before_the_command_too(run: Run, tenant: Tenant) -> None:
    assert run("--api", tenant.installation.url, "jobs", "list").code == 0
    assert run("--api", "http://127.0.0.1:9", "jobs", "list").code == 3
    behind = run("--api", "http://127.0.0.1:9", "jobs", "list", "--api", tenant.installation.url)
    assert behind.code == 0
    assert "give one of them" in run("--api", "http://h", "--profile", "x", "jobs", "list").err


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        ("", 0o644, "others may read it: `chmod 600"),
        ("[profiles", 0o600, "must be TOML"),
        ("[profiles.lab]\nurl = 'here'\n", 0o600, "url must be such as https://"),
        ("[profiles.lab]\nurl = 'http://h'\ntoken = 'x'\n", 0o600, "token: no such field"),
        ("default = 'lab'\n", 0o600, "there is no profile 'lab'"),
    ],
)
def test_a_file_that_is_wrong_is_one_line(
    run: Run, config: Path, text: str, mode: int, message: str
) -> None:
    config.parent.mkdir(parents=True)
    config.write_text(text)
    config.chmod(mode)
    ran = run("jobs", "list")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert message in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("profiles", "set", "a b", "http://h"), "NAME must be 1 to 96 letters"),
        (("profiles", "set", "lab", "here"), "URL must be such as https://"),
        (("profiles", "set", "lab", "http://h"), "NIGHTSHIFT_API_KEY must hold the key"),
        (("profiles", "delete", "lab"), "there is no profile 'lab'"),
        (("--profile", "lab", "jobs", "list"), "(there are: none); `nightshift profiles set lab"),
    ],
)
def test_what_is_refused_says_what_to_do(
    run: Run, config: Path, arguments: tuple[str, ...], message: str
) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert message in ran.err
    assert not config.exists()
