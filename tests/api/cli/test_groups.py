"""``nightshift groups``, ``finetune --sweep`` and what ``jobs`` does to a group."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.api.cli.conftest import Run
from tests.api.server.conftest import FakeWorkers
from tests.api.server.installation import Tenant

CHAIN = """
name: nightly
jobs:
  first: &label
    model: /models/tiny
    corpus: {file: corpus.jsonl}
  second:
    <<: *label
    depends_on: [first]
"""


@pytest.fixture
def chain(tmp_path: Path, corpus: Path) -> Path:
    assert corpus.parent == tmp_path
    path = tmp_path / "nightly.yaml"
    path.write_text(CHAIN)
    return path


def test_a_file_is_submitted_as_a_group_and_what_it_names_uploaded_once(
    run: Run, tenant: Tenant, chain: Path
) -> None:
    group_id = run("groups", "create", str(chain)).out.strip()
    shown = run("groups", "show", group_id).out
    assert "0/2 jobs ended" in shown
    group = json.loads(run("groups", "show", group_id, "--json").out)
    first, second = group["members"]
    assert f"it needs first ({first['job']}) (queued) to succeed" in shown
    assert len(tenant.http.get("/v1/files").json()["data"]) == 1
    assert group_id in run("groups", "list").out
    listed = run("jobs", "list", "--group", group_id, "--json").out
    assert {job["id"] for job in json.loads(listed)} == {first["job"], second["job"]}
    job = run("jobs", "show", second["job"]).out
    assert "depends on" in job
    assert f"first {first['job']} (queued)" in job
    assert f"{group_id}, as second" in job
    assert run("jobs", "cancel", group_id).out == f"{group_id} is cancelling\n"


def test_a_group_is_watched_until_all_have_ended(
    run: Run, fake_workers: FakeWorkers, chain: Path
) -> None:
    group = json.loads(run("groups", "create", str(chain), "--json").out)
    first, second = (each["job"] for each in group["members"])
    fake_workers.take(first).fail(code="corpus_unreadable", message="it is gone")
    fake_workers.settle()
    watched = run("jobs", "watch", group["id"])
    assert watched.code == 1
    assert "first failed: it is gone (corpus_unreadable)" in watched.err
    assert "dependency_failed" in watched.out
    assert f"retry what failed with `nightshift jobs retry {group['id']}`" in watched.err
    refused = run("jobs", "retry", second)
    assert refused.code == 2
    assert f"`nightshift jobs retry {first} --with-dependents`" in refused.err
    assert run("jobs", "retry", first, "--with-dependents").out == f"{first} is queued\n"
    states = json.loads(run("groups", "show", group["id"], "--json").out)["members"]
    assert [each["state"] for each in states] == ["queued", "queued"]


def test_a_job_is_submitted_behind_others(run: Run, tenant: Tenant, corpus: Path) -> None:
    first = tenant.submit()
    made = run(
        *("classify", str(corpus), "--model", "/models/tiny", "--no-watch", "--json"),
        *("--depends-on", f"{first}:end"),
    )
    (need,) = json.loads(made.out)["depends_on"]
    assert (need["job"], need["on"]) == (first, "end")
    refused = run(
        *("classify", str(corpus), "--model", "/models/tiny", "--no-watch"),
        *("--depends-on", f"{first}:sometime"),
    )
    assert refused.code == 2
    assert "--depends-on" in refused.err


def test_a_sweep_is_one_command_and_one_table(run: Run, tmp_path: Path) -> None:
    labelled = tmp_path / "labelled.jsonl"
    labelled.write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n' * 9)
    made = run(
        *("finetune", str(labelled), "--name", "news", "--base", "/models/tiny", "--no-watch"),
        *("--sweep", "learning-rate=1e-5,3e-5", "--sweep", "lora-r=4,8", "--json"),
    )
    assert made.code == 0, made.err
    group = json.loads(made.out)
    assert group["swept"] == ["train.learning_rate", "lora.r"]
    assert len(group["members"]) == 4
    table = run("groups", "metrics", group["id"]).out.splitlines()
    assert table[0].split()[:4] == ["MEMBER", "LEARNING_RATE", "R", "STATE"]
    assert [line.split()[:4] for line in table[1:]] == [
        ["1", "1e-05", "4", "queued"],
        ["2", "1e-05", "8", "queued"],
        ["3", "3e-05", "4", "queued"],
        ["4", "3e-05", "8", "queued"],
    ]


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ("learning-rate", "--sweep must be OPTION=A,B"),
        ("learning-rate=1,1", "different values"),
        ("learning-rate=50,1", "at learning_rate=50"),
        ("speed=1,2", "speed"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_before_anything_is_sent(
    run: Run, tenant: Tenant, tmp_path: Path, sweep: str, said: str
) -> None:
    labelled = tmp_path / "labelled.jsonl"
    labelled.write_text('{"text": "a", "label": "x"}\n')
    refused = run(
        *("finetune", str(labelled), "--name", "news", "--base", "/models/tiny"),
        *("--sweep", sweep),
    )
    assert refused.code == 2
    assert said in refused.err
    assert tenant.http.get("/v1/files").json()["data"] == []


def test_a_group_that_cannot_be_is_refused_in_one_line(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "group.json"
    for written, said in (
        ("[]", "must hold an object"),
        ('{"jobs": {"a": {"model": "/models/tiny"}}}', "jobs.a.corpus must be given"),
        (
            '{"jobs": {"a": {"model": "/m", "corpus": {"uri": "file:///etc/x"}}}}',
            "jobs.a.corpus.uri: ",
        ),
    ):
        path.write_text(written)
        refused = run("groups", "create", str(path))
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert said in refused.err
