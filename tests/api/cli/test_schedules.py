"""`nightshift schedules`: made of options, of a file, or of the command of a kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.api.cli.conftest import Ran, Run
from tests.api.server.installation import Tenant

OPTIONS = ("--cron", "0 2 * * *", "--time-zone", "Europe/Berlin")


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.json"
    path.write_text(
        json.dumps(
            {"model": "/models/tiny", "corpus": {"uri": "file:///allowed/{fire_time:%d}.jsonl"}}
        )
    )
    return path


def words(ran: Ran) -> str:
    return " ".join(ran.out.split())


def test_a_schedule_is_made_from_a_file(run: Run, spec: Path) -> None:
    made = run("schedules", "create", "nightly", *OPTIONS, "--spec", str(spec))
    assert made.code == 0, made.err
    assert made.out.startswith("nightly fires at 02:00 every day, Europe/Berlin time, next at 20")
    shown = run("schedules", "show", "nightly")
    assert "fires at 02:00 every day, Europe/Berlin time" in words(shown)
    assert "nightly  active" in run("schedules", "list").out


def test_a_schedule_is_made_from_the_command_of_a_kind(run: Run, corpus: Path) -> None:
    made = run(
        *("schedules", "create", "labels", "--every", "6h", "--overlap", "buffer_one", "--json"),
        *("--", "classify", str(corpus), "--model", "hf:org/name", "--top-k", "3"),
    )
    assert made.code == 0, made.err
    found = json.loads(made.out)
    (job,) = found["jobs"]
    assert job["spec"]["classify"]["top_k"] == 3
    assert job["spec"]["corpus"]["file"].startswith("file-")
    assert found["policy"]["overlap"] == "buffer_one"
    assert json.loads(run("jobs", "list", "--json").out) == []


def test_an_edit_changes_what_is_given(run: Run, spec: Path) -> None:
    run("schedules", "create", "nightly", *OPTIONS, "--spec", str(spec))
    edited = run("schedules", "edit", "nightly", "--every", "15m", "--unset", "time-zone")
    assert edited.code == 0, edited.err
    assert edited.out.startswith("nightly has version 2 and fires every 15 minutes")
    assert run("schedules", "versions", "nightly").out.count("\n") == 3


def test_it_is_paused_resumed_triggered_and_deleted(run: Run, spec: Path) -> None:
    run("schedules", "create", "nightly", *OPTIONS, "--spec", str(spec))
    assert run("schedules", "pause", "nightly", "--note", "a move").out == "nightly is paused\n"
    assert "note a move" in words(run("schedules", "show", "nightly"))
    assert run("schedules", "resume", "nightly").code == 0
    job_id = run("schedules", "trigger", "nightly").out.strip()
    assert job_id in run("schedules", "fires", "nightly").out
    assert "nightly, fire of" in run("jobs", "show", job_id).out
    assert run("schedules", "preview", "nightly", "--count", "2").out.count("02:00:00+0") == 2
    assert run("schedules", "delete", "nightly").out == "nightly is deleted\n"
    assert run("schedules", "show", "nightly").code == 2


def test_a_backfill_says_how_many_fires_there_are(run: Run, spec: Path) -> None:
    run("schedules", "create", "hourly", "--cron", "0 * * * *", "--spec", str(spec))
    made = run(
        "schedules", "backfill", "hourly", "--since", "3h", "--until", "0s", "--at-most", "2"
    )
    assert made.out == "3 fires, 2 at a time\n", made.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--cron", "99 * * * *"), "--cron"),
        (("--cron", "0 2 * * *", "--every", "1h"), "exactly one"),
        (("--every", "soon"), "--every"),
        (("--cron", "0 2 * * *", "--time-zone", "Berlin"), "--time-zone"),
    ],
)
def test_a_refusal_names_the_option(
    run: Run, spec: Path, options: tuple[str, ...], told: str
) -> None:
    refused = run("schedules", "create", "nightly", *options, "--spec", str(spec))
    assert refused.code == 2
    assert told in refused.err
    assert refused.err.count("\n") == 1


def test_what_is_submitted_must_be_given_once(run: Run, spec: Path) -> None:
    create = ("schedules", "create", "nightly", *OPTIONS)
    assert "what does each fire submit?" in run(*create).err
    assert "one of classify" in run(*create, "--", "jobs", "list").err
    both = run(*create, "--spec", str(spec), "--", "classify", "x", "--model", "m")
    assert "give one of them" in both.err


def test_the_command_behind_the_dashes_talks_to_the_same_server(
    run: Run, corpus: Path, monkeypatch: pytest.MonkeyPatch, tenant: Tenant
) -> None:
    monkeypatch.delenv("NIGHTSHIFT_API_URL")
    server = ("--api", tenant.installation.url)
    made = run(
        *(*server, "schedules", "create", "labels", "--every", "6h"),
        *("--", "classify", str(corpus), "--model", "hf:org/name"),
    )
    assert made.code == 0, made.err


GROUP = """
name: a night
jobs:
  train: &train
    kind: finetune
    model: news
    base: /models/tiny
    corpus: {file: corpus.jsonl}
  label:
    model: "{train.model}"
    corpus: {uri: "file:///allowed/{fire_time:%d}.jsonl"}
"""


@pytest.fixture
def group(tmp_path: Path, corpus: Path) -> Path:
    assert corpus.parent == tmp_path
    path = tmp_path / "night.yaml"
    path.write_text(GROUP)
    return path


def test_a_schedule_of_a_group_is_made_from_a_file_and_its_files_are_uploaded(
    run: Run, group: Path
) -> None:
    made = run("schedules", "create", "nightly", *OPTIONS, "--group", str(group), "--json")
    assert made.code == 0, made.err
    jobs = json.loads(made.out)["jobs"]
    assert list(jobs) == ["train", "label"]
    assert jobs["train"]["corpus"]["file"].startswith("file-")
    shown = words(run("schedules", "show", "nightly"))
    assert "submits a group: train (finetune), label (classify)" in shown
    group_id = run("schedules", "trigger", "nightly").out.strip()
    assert group_id.startswith("group_")
    assert group_id in run("schedules", "fires", "nightly").out
    assert "nightly" in run("groups", "list").out
    fire = json.loads(run("schedules", "fires", "nightly", "--json").out)[0]
    assert [job["member"] for job in fire["jobs"]] == ["train", "label"]


def test_an_edit_takes_a_group_in_the_place_of_one_job(run: Run, spec: Path, group: Path) -> None:
    run("schedules", "create", "nightly", *OPTIONS, "--spec", str(spec))
    edited = run("schedules", "edit", "nightly", "--group", str(group))
    assert edited.code == 0, edited.err
    assert "submits a group" in words(run("schedules", "show", "nightly"))
    run("schedules", "edit", "nightly", "--spec", str(spec))
    assert "submits classify" in words(run("schedules", "show", "nightly"))


def test_a_group_that_cannot_be_is_refused_in_one_line(
    run: Run, tmp_path: Path, spec: Path, group: Path
) -> None:
    create = ("schedules", "create", "nightly", *OPTIONS)
    both = run(*create, "--spec", str(spec), "--group", str(group))
    assert "--spec and --group both say what is submitted" in both.err
    path = tmp_path / "group.json"
    for written, said in (
        ("{}", "must hold the `jobs` of a group by name"),
        ('{"jobs": {}, "sweep": {}}', "a schedule submits no sweep"),
        ('{"jobs": {"a": {"model": "/m"}}}', "jobs.a.corpus: must be given"),
        (
            '{"jobs": {"a": {"model": "/m", "corpus": {"file": "file-none"}}}}',
            "jobs.a.corpus.file: no file",
        ),
    ):
        path.write_text(written)
        refused = run(*create, "--group", str(path))
        assert (refused.code, refused.err.count("\n")) == (2, 1), refused.err
        assert said in refused.err
