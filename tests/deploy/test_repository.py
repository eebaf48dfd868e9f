"""What a stranger finds in the repository is valid and follows the code."""

from __future__ import annotations

import email
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version
from ruamel.yaml import YAML

from jobs import distribution
from tests.deploy.test_deploy import program

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("api", "jobs", "workers")
LEAST_SETUPTOOLS = Version("80")


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load(path)
    return found


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("github-workflows", GITHUB / "workflows" / "ci.yml"),
        ("dependabot", GITHUB / "dependabot.yml"),
        ("github-issue-config", GITHUB / "ISSUE_TEMPLATE" / "config.yml"),
        ("github-issue-forms", GITHUB / "ISSUE_TEMPLATE" / "bug.yml"),
        ("github-issue-forms", GITHUB / "ISSUE_TEMPLATE" / "feature.yml"),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
@pytest.mark.slow
def test_the_files_of_the_host_are_valid(schema: str, path: Path) -> None:
    check = [program("check-jsonschema"), "--builtin-schema", f"vendor.{schema}", str(path)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ci_runs_what_people_run_and_may_only_read() -> None:
    workflow = read(GITHUB / "workflows" / "ci.yml")
    (job,) = workflow["jobs"].values()
    assert job["steps"][-1] == {"run": ".ci/run"}
    assert workflow["permissions"] == {"contents": "read"}
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_actions_are_pinned_by_their_commit() -> None:
    used = re.findall(r"uses: (\S+)", (GITHUB / "workflows" / "ci.yml").read_text())
    assert used
    assert [each for each in used if not re.search(r"@[0-9a-f]{40}$", each)] == []


def test_every_update_of_a_dependency_waits_for_some_days() -> None:
    for update in read(GITHUB / "dependabot.yml")["updates"]:
        assert update["cooldown"]["default-days"] >= 7, update["package-ecosystem"]


def test_the_hooks_before_a_commit_are_the_checks_of_make() -> None:
    (repository,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    hooks = [hook["entry"] for hook in repository["hooks"]]
    recipe = (ROOT / "Makefile").read_text().partition("check: $(VENV)/.dev")[2]
    made = [
        line.strip().replace("$(BIN)", ".venv/bin").removesuffix(" .")
        for line in recipe.partition("\n\n")[0].splitlines()[1:]
    ]
    assert {hook.replace(" --force-exclude", "") for hook in hooks} <= set(made)


def test_the_distribution_has_one_name_and_a_free_one() -> None:
    assert PROJECT["project"]["name"] == distribution.NAME != "nightshift"
    extras = PROJECT["project"]["optional-dependencies"]
    own = {text for texts in extras.values() for text in texts if text.startswith("nightshift")}
    assert own
    assert all(text.startswith(f"{distribution.NAME}[") for text in own)
    assert f"--exclude {distribution.NAME} " in (ROOT / "Makefile").read_text()
    assert set(PROJECT["project"]["scripts"]) == {"nightshift"}


def test_nothing_takes_the_command_for_the_distribution() -> None:
    wrong = re.compile(r"""version\(["']nightshift["']\)|install [^\n]*\bnightshift\[""")
    texts = [*(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "docs").rglob("*.md")]
    for name in PACKAGES:
        texts += (ROOT / name).rglob("*.py")
    assert not [str(path) for path in texts if wrong.search(path.read_text())]


def test_the_metadata_are_complete_and_name_no_place_that_there_is_not() -> None:
    project = PROJECT["project"]
    assert project["license"] == "Apache-2.0"
    assert all((ROOT / name).is_file() for name in [project["readme"], *project["license-files"]])
    assert {"keywords", "classifiers", "description"} <= set(project)
    assert "urls" not in project
    assert project["classifiers"] == sorted(project["classifiers"])


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_carries_its_types(package: str) -> None:
    assert (ROOT / package / "py.typed").read_bytes() == b""
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"][package]


@pytest.mark.slow
def test_the_wheel_has_every_module_and_all_that_is_no_module(tmp_path: Path) -> None:
    if Version(importlib.metadata.version("setuptools")) < LEAST_SETUPTOOLS:
        pytest.skip("this environment has an older setuptools than a build installs")
    source, wheels = tmp_path / "source", tmp_path / "wheels"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*build, "--quiet", "--wheel-dir", str(wheels), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = wheels.iterdir()
    assert wheel.name.startswith("nightshift_queue-")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (info,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        metadata = email.message_from_bytes(archive.read(info))
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    assert expected - names == set()
    assert metadata["Name"] == distribution.NAME
    assert metadata["License-Expression"] == "Apache-2.0"
    assert any(name.endswith("licenses/LICENSE") for name in names)
