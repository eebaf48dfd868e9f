"""A chain and a sweep through the command line: real processes, one bar, one branch that fails."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.stack import ports
from tests.support.installation import Installation, sentences
from tests.support.installation import jsonl as texts
from tests.support.waiting import wait_until
from tests.workers.gang.trainer import Trainer, jsonl, labelled

pytestmark = pytest.mark.slow

RECIPE = {"epochs": 1, "batch_rows": 16, "learning_rate": 1e-3}


@dataclass(frozen=True)
class Shell:
    """Runs ``nightshift`` as a process of its own, pointed at an API of the installation."""

    installation: Installation
    folder: Path
    url: str

    def run(self, *words: str, terminal: bool = False) -> tuple[int, str, str]:
        """Exit code, stdout and stderr, which is a terminal if wanted."""
        ours, theirs = pty.openpty() if terminal else os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-m", "api.cli", *words],
            cwd=self.folder,
            env={**self.installation.env, "NIGHTSHIFT_API_URL": self.url, "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=theirs,
            text=True,
        )
        os.close(theirs)
        shown = bytearray()
        while block := _read(ours):
            shown += block
        os.close(ours)
        out, _ = process.communicate(timeout=60)
        return process.returncode, out, shown.decode()

    def group(self, group_id: str) -> dict[str, dict[str, Any]]:
        """The members, by name."""
        members = json.loads(self.run("groups", "show", group_id, "--json")[1])["members"]
        return {member["member"]: member for member in members}


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # a terminal whose other end is closed
        return b""


@pytest.fixture(scope="module")
def shell(hosts: Trainer) -> Iterator[Shell]:
    installation, port = hosts.installation, ports.choose()
    api = installation.start("api.server", NIGHTSHIFT_API_PORT=str(port))
    pool = installation.start_role("pool")
    (inputs,) = installation.settings.allowed_inputs
    folder = Path(inputs.removeprefix("file://"))
    shell = Shell(installation, folder, f"http://127.0.0.1:{port}")
    wait_until(lambda: _answers(shell.url), seconds=30)
    yield shell
    for process in (api, pool):
        process.stop()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").is_success
    except httpx.TransportError:
        return False


def chain(shell: Shell) -> str:
    """Four jobs: one branch evaluates what was trained, one needs a file that is not there."""
    (shell.folder / "labelled.jsonl").write_bytes(jsonl(labelled(60)))
    (shell.folder / "texts.jsonl").write_bytes(texts(sentences(30)))
    base = str(shell.installation.model)
    late = {"uri": f"file://{shell.folder}/late.jsonl"}
    jobs = {
        "train": {
            "kind": "finetune",
            "model": "chained",
            "base": base,
            "train": RECIPE,
            "corpus": {"file": "labelled.jsonl"},
        },
        "check": {
            "kind": "evaluate",
            "model": "{train.model}",
            "corpus": {"file": "labelled.jsonl"},
        },
        "label": {"kind": "classify", "model": "{train.model}", "corpus": late},
        "again": {
            "kind": "classify",
            "model": "{train.model}",
            "corpus": {"file": "texts.jsonl"},
            "depends_on": ["label"],
        },
    }
    path = shell.folder / "nightly.json"
    path.write_text(json.dumps({"name": "nightly", "jobs": jobs}))
    return path.name


def test_a_chain_of_four_is_one_bar_and_only_the_branch_that_failed_is_retried(
    shell: Shell, trainer: Trainer
) -> None:
    code, _, bar = shell.run("groups", "create", chain(shell), terminal=True)
    found = re.search(r"group_\w+", bar)
    assert found is not None, bar
    group_id = found[0]
    assert code == 1, f"{bar}\n{trainer.logs()}"
    assert "nightly" in bar
    assert "4/4 jobs ended" in bar
    assert re.search(r"again failed: it needs label \(job_\w+\) \(failed, \w+\)", bar), bar
    before = shell.group(group_id)
    states = {name: member["state"] for name, member in before.items()}
    assert states == {
        "train": "succeeded",
        "check": "succeeded",
        "label": "failed",
        "again": "failed",
    }
    assert before["again"]["error"]["code"] == "dependency_failed"
    assert before["check"]["model_pinned"] == "chained@1"

    (shell.folder / "late.jsonl").write_bytes(texts(sentences(20)))
    label = before["label"]["job"]
    assert shell.run("jobs", "retry", label, "--with-dependents")[0] == 0
    code, out, bar = shell.run("jobs", "watch", group_id, terminal=True)
    assert code == 0, f"{out}\n{bar}\n{trainer.logs()}"
    after = shell.group(group_id)
    assert {member["state"] for member in after.values()} == {"succeeded"}
    assert after["again"]["rows"] == {"done": 30, "total": 30}
    for name in ("train", "check"):
        assert len(trainer.runs(after[name]["job"])) == 1


def night(shell: Shell) -> str:
    """Labels, then a fine-tune that decides on too few rows, then a corpus without an object."""
    (shell.folder / "labelled.jsonl").write_bytes(jsonl(labelled(60)))
    (shell.folder / "texts.jsonl").write_bytes(texts(sentences(20)))
    base = str(shell.installation.model)
    nothing = {"uri": f"file://{shell.folder}/{{schedule}}-*.jsonl", "if_empty": "skip"}
    jobs = {
        "label": {"kind": "classify", "model": base, "corpus": {"file": "texts.jsonl"}},
        "train": {
            "kind": "finetune",
            "model": "nightly",
            "base": base,
            "train": RECIPE,
            "corpus": {"file": "labelled.jsonl"},
            "promote": {"alias": "champion", "min_rows": 10_000},
            "depends_on": ["label"],
        },
        "new": {"kind": "classify", "model": "{train.model}", "corpus": nothing},
        "again": {
            "kind": "classify",
            "model": base,
            "corpus": {"file": "texts.jsonl"},
            "depends_on": ["new"],
        },
    }
    path = shell.folder / "night.json"
    path.write_text(json.dumps({"jobs": jobs}))
    return path.name


def test_a_fire_is_a_chain_and_the_exit_code_tells_what_was_not_promoted(
    shell: Shell, trainer: Trainer
) -> None:
    made = shell.run("schedules", "create", "night", "--every", "1d", "--group", night(shell))
    assert made[0] == 0, made
    code, group_id, said = shell.run("schedules", "trigger", "night")
    assert code == 0, said
    code, out, said = shell.run("jobs", "watch", group_id.strip(), "--json")
    assert code == 4, f"{out}\n{said}\n{trainer.logs()}"
    told = json.loads(out)
    assert (told["state"], told["outcome"]) == ("succeeded", "not_promoted")
    assert {each["member"]: each["outcome"] for each in told["members"]} == {
        "label": "succeeded",
        "train": "not_promoted",
        "new": "empty",
        "again": "empty",
    }
    (fire,) = json.loads(shell.run("schedules", "fires", "night", "--json")[1])
    assert (fire["state"], fire["group"]) == ("succeeded", told["id"])
    assert [job["member"] for job in fire["jobs"]] == ["label", "train", "new", "again"]
    assert "nightly@1 was not promoted" in said
    shell.run("schedules", "delete", "night")


@pytest.mark.long
def test_a_sweep_of_eight_is_one_bar_one_table_and_the_best_is_promoted(
    shell: Shell, trainer: Trainer
) -> None:
    (shell.folder / "labelled.jsonl").write_bytes(jsonl(labelled(60)))
    code, out, bar = shell.run(
        *("finetune", "labelled.jsonl", "--base", str(shell.installation.model)),
        *("--name", "swept", "--job-name", "tonight", "--promote", "champion"),
        *("--batch-rows", "16", "--sweep", "learning-rate=1e-5,1e-4,1e-3,3e-3"),
        *("--sweep", "epochs=1,3"),
        terminal=True,
    )
    assert code == 0, f"{out}\n{bar}\n{trainer.logs()}"
    assert "8/8 jobs ended" in bar
    found = re.search(r"group_\w+", bar)
    assert found is not None
    rows = json.loads(shell.run("groups", "metrics", found[0], "--json")[1])
    assert len(rows) == 8
    values = [row["metrics"]["validation/macro_f1"] for row in rows]
    (best,) = [row for row in rows if row["best"]]
    assert best["metrics"]["validation/macro_f1"] == max(values)
    champion = json.loads(shell.run("models", "show", "swept@champion", "--json")[1])
    promoted = {row["model"]: row for row in rows}[champion["id"]]
    assert promoted["metrics"]["validation/macro_f1"] == max(values)
    assert promoted["promoted"]
