"""``nightshift jobs``, ``files`` and ``workers``: what they print and how they end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.decisions.result_quality import QualityCounts
from tests.api.cli.conftest import Run
from tests.api.server.conftest import FakeWorkers
from tests.api.server.installation import Tenant


@pytest.fixture
def done(tenant: Tenant, fake_workers: FakeWorkers, corpus: Path) -> str:
    """A job that has succeeded, with one failed row."""
    file_id = tenant.upload(corpus.read_bytes())
    job_id = tenant.submit(corpus={"file": file_id}, output={"format": "jsonl"}, name="done one")
    hands = fake_workers.take(job_id)
    hands.plan([2, 3])
    hands.work(0)
    hands.work(1, failed=1)
    hands.finish()
    return job_id


def test_jobs_are_listed_for_people_and_for_programs(run: Run, tenant: Tenant, done: str) -> None:
    waiting = tenant.submit()
    table = run("jobs", "list").out.splitlines()
    assert table[0].split()[:5] == ["JOB", "STATE", "KIND", "DONE", "FAILED"]
    assert table[1].startswith(waiting)
    assert "no control process" in table[1]
    assert table[2].split()[:5] == [done, "succeeded", "classify", "5/5", "1"]
    assert [job["id"] for job in json.loads(run("jobs", "list", "--json").out)] == [waiting, done]
    assert waiting not in run("jobs", "list", "--state", "succeeded").out
    assert len(json.loads(run("jobs", "list", "--json", "--limit", "1").out)) == 1


def test_a_job_is_shown_in_full(run: Run, done: str) -> None:
    shown = run("jobs", "show", done).out
    assert "state        succeeded" in shown
    assert "5 of 5" in shown
    assert "good" in shown
    assert "empty_text  1     line 5  the text is empty" in shown
    assert json.loads(run("jobs", "show", done, "--json").out)["id"] == done


def test_a_job_shows_how_well_its_rows_could_be_read(
    run: Run, tenant: Tenant, fake_workers: FakeWorkers
) -> None:
    job_id = tenant.submit()
    hands = fake_workers.take(job_id)
    hands.plan([5000])
    hands.work(
        0, quality=QualityCounts(5_000, 500, rows_near_tie=1, tokens=80_000, tokens_unknown=0)
    )
    shown = run("jobs", "show", job_id).out
    assert "0.0% of the tokens unknown, 10.0% of the rows truncated, <0.1% near-ties" in shown
    assert "warning: 10.0% (500 of 5,000) of the rows are longer" in shown


def test_results_are_printed_as_json_lines(run: Run, done: str) -> None:
    rows = [json.loads(line) for line in run("jobs", "results", done).out.splitlines()]
    assert [row["row"] for row in rows] == [0, 1, 2, 3, 4]


def test_results_of_any_job_can_be_written_as_jsonl(
    run: Run, tenant: Tenant, fake_workers: FakeWorkers, tmp_path: Path
) -> None:
    job_id = tenant.submit()
    fake_workers.take(job_id).plan([3])
    fake_workers.take(job_id).work(0)
    assert run("jobs", "results", job_id, "--out", "rows.jsonl").code == 0
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 3
    ran = run("jobs", "results", job_id, "--out", "rows.parquet")
    assert ran.code == 2
    assert "can be written as .jsonl, not 'rows.parquet'" in ran.err


def test_a_verified_job_ends_with_0(run: Run, done: str) -> None:
    ran = run("jobs", "verify", done)
    assert ran.code == 0
    assert "verified: every input row is exactly one output row" in ran.out


def test_a_difference_ends_with_1(run: Run, tenant: Tenant, fake_workers: FakeWorkers) -> None:
    job_id = tenant.submit(output={"format": "jsonl"})
    hands = fake_workers.take(job_id)
    hands.plan([2])  # the corpus has one row
    hands.work(0)
    hands.finish()
    ran = run("jobs", "verify", job_id)
    assert ran.code == 1
    assert "NOT verified" in ran.out
    assert "differs: the corpus has 1 rows, but 2 were planned" in ran.out
    assert not json.loads(run("jobs", "verify", job_id, "--json").out)["ok"]


def test_a_job_is_paused_resumed_and_cancelled(run: Run, tenant: Tenant) -> None:
    job_id = tenant.submit()
    said = [run("jobs", action, job_id).out for action in ("pause", "resume", "cancel")]
    assert said == [f"{job_id} is {state}\n" for state in ("paused", "queued", "cancelling")]
    ran = run("jobs", "pause", job_id)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "cancelling" in ran.err


def test_failed_rows_are_retried(run: Run, tenant: Tenant, done: str) -> None:
    assert run("jobs", "retry", done).out == f"{done} is running\n"
    assert tenant.job(done)["chunks"] == {"pending": 1, "leased": 0, "done": 1}


def test_events_are_told_in_order(run: Run, tenant: Tenant, done: str) -> None:
    kinds = [line.split()[2] for line in run("jobs", "events", done).out.splitlines()]
    assert kinds == ["accepted", "state", "state", "state", "row_errors", "state"]
    lines = run("jobs", "events", done, "--json").out.splitlines()
    assert [json.loads(line).get("state") for line in lines][-1] == "succeeded"
    assert run("jobs", "events", tenant.submit()).code == 0


def test_chunks_are_listed(run: Run, done: str) -> None:
    assert run("jobs", "chunks", done).out.splitlines()[1].split()[1:4] == ["0", "2", "done"]
    assert len(json.loads(run("jobs", "chunks", done, "--json").out)) == 2


def test_watching_an_ended_job_ends_at_once(run: Run, done: str) -> None:
    ran = run("jobs", "watch", done)
    assert ran.code == 0
    assert f"{done} succeeded: 5 rows, 1 failed" in ran.out


def test_an_ended_job_and_its_file_are_deleted(run: Run, tenant: Tenant, done: str) -> None:
    waiting = tenant.submit()
    refused = run("jobs", "delete", waiting)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    file_id = tenant.job(done)["spec"]["corpus"]["file"]
    assert run("jobs", "delete", done).out == f"{done} is deleted\n"
    assert run("files", "delete", file_id).out == f"{file_id} is deleted\n"
    assert run("jobs", "show", done).code == 2
    assert [job["id"] for job in json.loads(run("jobs", "list", "--json").out)] == [waiting]


def test_jobs_are_filtered_and_counted(run: Run, tenant: Tenant, done: str) -> None:
    trained = tenant.train(name="Nightly News")
    for _ in range(3):
        tenant.submit(name="50%_done")

    def listed(*filters: str) -> list[str]:
        return [job["id"] for job in json.loads(run("jobs", "list", "--json", *filters).out)]

    assert listed("--kind", "finetune") == listed("--name", "nightly") == [trained]
    assert listed("--name", "done one", "--state", "succeeded", "--kind", "classify") == [done]
    assert len(listed("--name", "%_")) == 3
    assert len(listed("--since", "1h")) == 5
    assert listed("--since", "2100-01-01") == []
    shown = run("jobs", "list", "--kind", "classify", "--limit", "2")
    assert (len(shown.out.splitlines()), shown.err) == (3, "2 of 4 shown (--limit shows more)\n")


def test_a_job_of_another_kind_is_told_the_command_for_it(run: Run, tenant: Tenant) -> None:
    job_id = tenant.submit()
    assert f"see `nightshift jobs chunks {job_id}` and `" in run("jobs", "logs", job_id).err
    assert "/v1/" not in run("jobs", "logs", job_id).err


def test_an_id_that_is_none_is_refused_here(run: Run) -> None:
    for given in ("", "a/b", "..", "x y", "\x1b[0m"):
        ran = run("jobs", "show", given)
        assert ran.err.startswith("nightshift: JOB must be the id of a job"), ran.err
        assert (ran.code, ran.err.count("\n")) == (2, 1)


def test_a_job_that_is_not_there_is_one_line(run: Run) -> None:
    for command in ("show", "watch", "results", "verify", "cancel", "events"):
        ran = run("jobs", command, "job_none")
        assert (ran.code, ran.out) == (2, "")
        assert ran.err == "nightshift: no job 'job_none' in this project\n"


def test_files_go_up_and_come_back(run: Run, corpus: Path, tmp_path: Path) -> None:
    file_id = run("files", "upload", str(corpus)).out.strip()
    listed = run("files", "list").out.splitlines()[1].split()
    assert (listed[:3], listed[-1]) == ([file_id, "90", "B"], corpus.name)
    assert run("files", "download", file_id, "--out", "copy").code == 0
    assert (tmp_path / "copy").read_bytes() == corpus.read_bytes()
    assert json.loads(run("files", "list", "--json").out)[0]["id"] == file_id
    assert run("files", "upload", "nowhere").err == "nightshift: there is no file nowhere\n"


def test_workers_are_listed(run: Run) -> None:
    assert run("workers", "list").out.startswith("WORKER")
    assert json.loads(run("workers", "list", "--json").out) == []


def test_refused_messages_are_listed(run: Run, fake_workers: FakeWorkers) -> None:
    assert run("workers", "refused").out.startswith("LAST")
    fake_workers.refuse("shown")
    assert "pool.cpu  unsigned  it has no signature" in run("workers", "refused").out
    found = json.loads(run("workers", "refused", "--json").out)
    assert "shown" in {each["digest"] for each in found}


def test_a_folder_that_cannot_be_written_is_one_line(run: Run, done: str) -> None:
    ran = run("jobs", "results", done, "--out", "no/rows.jsonl")
    assert ran.code == 2
    assert "/no, must exist: make it, or name another" in ran.err
    assert ran.err.count("\n") == 1
