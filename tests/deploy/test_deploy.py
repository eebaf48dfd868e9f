"""The deployment files follow the code: checked without Docker."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import psutil
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

from api.stack import ports, valkey
from jobs import secret_files
from jobs.settings import Settings
from tests.support.waiting import wait_until
from workers import draining

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILES = sorted((ROOT / "deploy").glob("*.Dockerfile"))
ALL_DOCKERFILES = [*DOCKERFILES, ROOT / "deploy" / "check" / "servers.Dockerfile"]
SERVICES: dict[str, dict[str, Any]] = YAML(typ="safe").load(COMPOSE)["services"]
OURS = {name: each for name, each in SERVICES.items() if "build" in each}

SECRETS: dict[str, dict[str, str]] = YAML(typ="safe").load(COMPOSE)["secrets"]
CONFINED = {
    name: each
    for name, each in SERVICES.items()
    if name not in {"postgres", "valkey", "objects"}  # their images start as root
}

SETTINGS = {f"NIGHTSHIFT_{name.upper()}" for name in Settings.model_fields}
READ_ELSEWHERE = {"NIGHTSHIFT_API_KEY", "NIGHTSHIFT_FLOWER_BASIC_AUTH"}
ENTRIES = {
    ("jobs.database", "migrate"),
    ("jobs.database", "ensure-key"),
    ("api.server",),
    ("workers.processes", "control"),
    ("workers.processes", "planner"),
    ("workers.processes", "pool"),
    ("workers.processes", "host"),
    ("workers.processes", "flower"),
}


def program(name: str) -> str:
    """A program of the virtual environment that runs the tests."""
    return str(Path(sys.executable).with_name(name))


def test_the_compose_file_is_valid() -> None:
    check = [program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_secret_is_among_the_arguments_of_a_service() -> None:
    for name, service in SERVICES.items():
        assert not re.search(r"(?<!\$)\$\{", str(service.get("command"))), name


def test_no_service_has_a_secret_in_its_environment() -> None:
    secret = re.compile(r"PASSWORD|TOKEN|SECRET|KEY|AUTH")
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if secret.search(variable) and not variable.endswith(("_PER_KEY", "_TOKENS")):
                assert variable.endswith("_FILE"), (name, variable)
                assert value.removeprefix("/run/secrets/") in service["secrets"], (name, variable)
            assert not re.search(r"://[^/]*:[^/]*@", str(value or "")), (name, variable)


def test_a_service_has_the_secrets_that_it_reads_and_no_others() -> None:
    for name, service in SERVICES.items():
        read = re.findall(r"/run/secrets/(\w+)", str(service))
        if name == "prometheus":
            read += re.findall(
                r"/run/secrets/(\w+)", (ROOT / "deploy/prometheus/prometheus.yml").read_text()
            )
        assert set(read) == set(service.get("secrets", [])), name
    assert set(SECRETS) == {
        secret for service in SERVICES.values() for secret in service.get("secrets", [])
    }


@pytest.mark.parametrize("name", sorted(CONFINED))
def test_a_container_of_ours_may_write_to_its_volumes_alone(name: str) -> None:
    service = CONFINED[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] == ["/tmp"]


def test_valkey_starts_with_the_configuration_that_compose_gives_it(tmp_path: Path) -> None:
    """As in the image, whose entry point runs what it is given."""
    (tmp_path / "docker-entrypoint.sh").write_text('#!/bin/sh\nexec "$@"\n')
    (tmp_path / "docker-entrypoint.sh").chmod(0o755)
    (tmp_path / "valkey-server").symlink_to(valkey.binary())
    port = ports.choose()
    (tmp_path / "valkey_password").write_text("secret\n")
    script = SERVICES["valkey"]["command"][2].replace("$$", "$")
    script = script.replace("/run/secrets", str(tmp_path))
    script = script.replace("END\n", "END\nport {port}\n".replace("{port}", str(port)), 1)
    process = subprocess.Popen(
        ["sh", "-c", script],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: valkey.answers(f"redis://:secret@127.0.0.1:{port}/0"))
        assert not valkey.answers(f"redis://:guess@127.0.0.1:{port}/0")
        assert "secret" not in " ".join(psutil.Process(process.pid).cmdline())
    finally:
        process.terminate()
    assert process.wait(timeout=10) == 0


@pytest.mark.parametrize("path", ALL_DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_passes_the_linter(path: Path) -> None:
    done = subprocess.run([program("hadolint"), str(path)], capture_output=True, check=False)
    assert (done.returncode, done.stdout.decode()) == (0, "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_runs_as_an_ordinary_user_and_knows_whether_it_is_well(path: Path) -> None:
    text = path.read_text()
    assert "\nUSER 10001\n" in text
    assert "\nHEALTHCHECK " in text
    assert text.index("ARG BASE_IMAGE") < text.index("FROM ${BASE_IMAGE}")


@pytest.mark.parametrize("path", ALL_DOCKERFILES, ids=lambda path: path.name)
def test_every_file_that_an_image_copies_is_there_and_not_ignored(path: Path) -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", path.read_text(), flags=re.MULTILINE)
    kept = (ROOT / ".dockerignore").read_text().split()
    for source in " ".join(copied).split():
        assert (ROOT / source).exists()
        assert f"!{source}" in kept


@pytest.mark.parametrize("path", [COMPOSE, ROOT / "deploy" / "env.example", *DOCKERFILES], ids=str)
def test_every_name_of_a_setting_is_one_that_the_code_reads(path: Path) -> None:
    named = set(re.findall(r"\bNIGHTSHIFT_[A-Z_]+", path.read_text()))
    assert {name.removesuffix(secret_files.SUFFIX) for name in named} <= SETTINGS | READ_ELSEWHERE


@pytest.mark.parametrize("name", sorted(READ_ELSEWHERE))
def test_names_that_are_no_settings_are_read_somewhere(name: str) -> None:
    rooms = (ROOT / room for room in ("api", "jobs", "workers"))
    sources = (path.read_text() for room in rooms for path in room.rglob("*.py"))
    assert any(f'secret_files.read("{name}"' in source for source in sources)


def test_a_worker_can_be_given_every_setting() -> None:
    given = {*SERVICES["worker"]["environment"], *SERVICES["trainer"]["environment"]}
    given = {name.removesuffix(secret_files.SUFFIX) for name in given}
    assert {name for name in SETTINGS if not name.startswith("NIGHTSHIFT_API_")} <= given


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_service_runs_a_real_entry_of_an_image_that_is_there(name: str) -> None:
    python, flag, *words = OURS[name]["command"]
    assert (python, flag) == ("python", "-m")
    assert any(tuple(words[: len(entry)]) == entry for entry in ENTRIES)
    module = import_module(words[0])
    entry = import_module(f"{words[0]}.__main__") if hasattr(module, "__path__") else module
    assert 'if __name__ == "__main__":' in Path(entry.__file__ or "").read_text()
    assert ROOT / OURS[name]["build"]["dockerfile"] in DOCKERFILES


def test_those_that_work_end_while_control_and_the_servers_still_run() -> None:
    """Compose stops a service before those that it depends on."""
    for name, each in OURS.items():
        if each["command"][3:4] in (["planner"], ["pool"], ["host"]):
            assert {"control", "postgres", "valkey", "objects"} <= set(each["depends_on"]), name


@pytest.mark.parametrize(
    ("role", "seconds"),
    [
        ("host", Settings().host_drain.total_seconds()),
        ("pool", 2 * draining.FINISH_SECONDS),
        ("planner", 2 * draining.FINISH_SECONDS),
    ],
)
def test_a_service_has_the_time_to_end_what_it_works_on(role: str, seconds: float) -> None:
    services = [each for each in OURS.values() if each["command"][3:4] == [role]]
    graces = {re.sub(r"^\$\{\w+:-(.+)\}$", r"\1", each["stop_grace_period"]) for each in services}
    assert {grace[-1] for grace in graces} == {"s"}
    assert all(float(grace.removesuffix("s")) >= seconds for grace in graces)
    assert all(each.get("stop_signal", "SIGTERM") == "SIGTERM" for each in services)


def test_every_role_of_the_workers_room_has_a_service() -> None:
    run = {each["command"][3] for each in OURS.values() if "workers.processes" in each["command"]}
    assert run == {"control", "planner", "pool", "host", "flower"}


def test_every_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    make = [sys.executable, str(ROOT / "deploy" / "make_secrets.py"), str(folder)]
    subprocess.run(make, check=True)
    texts = {path.name: path.read_text() for path in folder.iterdir()}
    assert [name for name, text in texts.items() if text != text.strip()] == []
    assert {f"${{SECRETS_FOLDER:-./secrets}}/{name}" for name in texts} == {
        secret["file"] for secret in SECRETS.values()
    }
    assert len(set(texts.values())) == len(texts)
    assert min(len(text) for text in texts.values()) >= 24
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    page = (ROOT / "docs" / "deploy.md").read_text()
    assert [name for name in texts if f"`{name}`" not in page] == []
    again = subprocess.run(make, check=True, capture_output=True, text=True)
    assert again.stdout == ""
    assert {path.name: path.read_text() for path in folder.iterdir()} == texts


def test_every_variable_of_the_compose_file_is_explained() -> None:
    used = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE.read_text()))
    explained = (ROOT / "deploy" / "env.example").read_text()
    assert {
        name for name in used if not re.search(rf"^#?{name}=", explained, re.MULTILINE)
    } == set()


def test_nothing_listens_beyond_this_machine_unless_asked() -> None:
    published = [port for each in SERVICES.values() for port in each.get("ports", [])]
    assert published
    assert all(re.match(r"\$\{[A-Z_]+:-127\.0\.0\.1:", port) for port in published)


@pytest.mark.parametrize(
    ("extra", "left_out"),
    [("", {"torch", "celery", "transformers"}), ("queue", {"torch", "transformers"})],
)
def test_the_small_images_install_no_torch(extra: str, left_out: set[str]) -> None:
    installed = closure({extra})
    assert left_out.isdisjoint(installed)
    assert {"sqlalchemy", "obstore"} <= installed


def test_the_image_of_control_has_what_its_heartbeat_needs() -> None:
    assert {"psutil", "celery", "redis"} <= closure({"queue"})


def test_the_worker_image_installs_torch() -> None:
    assert {"torch", "peft", "sacrebleu"} <= closure({"training"})


def closure(extras: set[str]) -> set[str]:
    """Names of all that installing this project with the extras brings, from installed metadata."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    waiting = [
        Requirement(text)
        for texts in (project["dependencies"], *(optional[extra] for extra in extras if extra))
        for text in texts
    ]
    found: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        name, wishes = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if (name, wishes) not in found:
            found.add((name, wishes))
            texts = _own(project, wishes) if name == project["name"] else requires(name) or []
            waiting += [each for text in texts if _applies(each := Requirement(text), wishes)]
    return {name for name, _ in found}


def _own(project: dict[str, Any], extras: frozenset[str]) -> list[str]:
    return [text for extra in extras for text in project["optional-dependencies"][extra]]


def _applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    if requirement.marker is None:
        return True
    return any(requirement.marker.evaluate({"extra": extra}) for extra in extras or {""})
