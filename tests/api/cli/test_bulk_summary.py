"""The summary of a bulk job at its end: rows, speed, errors, warnings and why it failed."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from api.cli import progress_bars
from jobs.decisions.result_quality import QualityCounts
from tests.api.cli.conftest import Ran, Run
from tests.api.server.conftest import FakeWorkers
from tests.api.server.installation import Tenant
from tests.support.waiting import wait_until


def corpus_job(tenant: Tenant, corpus: Path) -> str:
    return tenant.submit(corpus={"file": tenant.upload(corpus.read_bytes())})


def work(fake_workers: FakeWorkers, job_id: str) -> None:
    """Do the five rows of the corpus, the last of which fails; each has three tokens."""
    hands = fake_workers.take(job_id)
    hands.plan([2, 3])
    hands.work(0)
    hands.work(1, failed=1)
    hands.finish()


def test_with_out_a_job_that_writes_is_waited_for_and_its_results_are_fetched(
    run: Run, tenant: Tenant, fake_workers: FakeWorkers, corpus: Path, tmp_path: Path
) -> None:
    def do_the_job() -> None:
        wait_until(lambda: newest(tenant))
        work(fake_workers, str(newest(tenant)))

    worker = threading.Thread(target=do_the_job)
    worker.start()
    ran = run("text2text", str(corpus), "--model", "/m", "--out", "out.jsonl")
    worker.join()
    assert ran.code == 0, ran.err
    assert "succeeded: 5 rows, 1 failed, " in ran.out
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 5


def newest(tenant: Tenant) -> str | None:
    jobs = tenant.http.get("/v1/jobs").json()["data"]
    return jobs[0]["id"] if jobs else None


def test_the_summary_of_a_job_without_labels_says_how_fast_it_was(
    tenant: Tenant, fake_workers: FakeWorkers, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = corpus_job(tenant, corpus)
    work(fake_workers, job_id)
    job = {**tenant.job(job_id), "rate": 50.0, "histogram": {}, "row_errors": []}
    progress_bars.summary(job)
    printed = capsys.readouterr().out
    assert printed == f"{job_id} succeeded: 5 rows, 1 failed, 50/s, 150 tokens/s\n"


def test_the_summary_of_an_int8_job_says_how_many_labels_agree(
    tenant: Tenant, fake_workers: FakeWorkers, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = corpus_job(tenant, corpus)
    hands = fake_workers.take(job_id)
    hands.plan([2, 3])
    hands.work(0, checked=2, agreeing=2)
    hands.work(1, checked=2, agreeing=1)
    hands.finish()
    job = tenant.job(job_id)
    assert job["agreement"] == {"rows": 4, "equal": 3}
    progress_bars.summary(job)
    assert "int8: 75.0% of 4 rows agree with float32" in capsys.readouterr().out


def test_the_summary_has_failed_rows_by_code_with_the_first_of_each(
    tenant: Tenant, fake_workers: FakeWorkers, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = corpus_job(tenant, corpus)
    work(fake_workers, job_id)
    progress_bars.summary(tenant.job(job_id))
    *_, headers, errors = capsys.readouterr().out.splitlines()
    assert headers.split() == ["ERROR", "ROWS", "FIRST", "MESSAGE"]
    assert re.split(r"  +", errors) == ["empty_text", "1", "line 5", "the text is empty"]


def test_the_summary_ends_with_the_warnings(
    tenant: Tenant, fake_workers: FakeWorkers, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = tenant.submit()
    hands = fake_workers.take(job_id)
    hands.plan([5])
    hands.work(0, quality=QualityCounts(rows=5, rows_truncated=2, tokens=40, tokens_unknown=1))
    progress_bars.summary(tenant.job(job_id))
    printed = capsys.readouterr().out
    assert "\nwarning: 40.0% (2 of 5) of the rows are longer than the model's window" in printed
    assert "unknown" not in printed


def test_the_summary_of_a_job_that_did_nothing_says_so(
    tenant: Tenant, fake_workers: FakeWorkers, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = tenant.submit()
    fake_workers.take(job_id).fail(code="corpus_empty", message="no rows")
    progress_bars.summary(tenant.job(job_id))
    printed = capsys.readouterr().out
    assert re.fullmatch(rf"{job_id} failed: 0 rows, 0 failed, (-|0\.0/s)\n", printed)


@pytest.fixture
def all_failed(run: Run, tenant: Tenant, fake_workers: FakeWorkers, corpus: Path) -> Ran:
    """What `jobs watch` prints of a job whose every row failed."""
    job_id = corpus_job(tenant, corpus)
    hands = fake_workers.take(job_id)
    hands.plan([2, 3])
    hands.work(0, failed=2)
    assert not hands.end_failed()
    hands.work(1, failed=3)
    assert hands.end_failed()
    return run("jobs", "watch", job_id)


def test_a_job_whose_every_row_failed_exits_with_1(all_failed: Ran) -> None:
    assert all_failed.code == 1
    assert " failed: 5 rows, 5 failed" in all_failed.out


def test_the_errors_of_its_rows_are_in_the_table(all_failed: Ran) -> None:
    assert "empty_text  5     line 1  the text is empty" in all_failed.out


def test_its_first_failed_row_is_a_warning(all_failed: Ran) -> None:
    warning = "has failed rows, the first on line 1: the text is empty (empty_text)"
    assert warning in all_failed.err


def test_its_reason_is_the_last_line_on_stderr(all_failed: Ran) -> None:
    last = all_failed.err.splitlines()[-1]
    assert " failed: all 5 rows failed: 5 empty_text; such as" in last
    assert last.endswith("(too_many_failed_rows)")
