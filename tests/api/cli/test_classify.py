"""``nightshift classify``: what is checked before anything is sent, and the way to the results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.api.cli.conftest import Run
from tests.api.server.conftest import FakeWorkers
from tests.api.server.installation import Tenant
from tests.support.tiny_models import tiny_classifier
from tests.support.waiting import wait_until


def _work(fake_workers: FakeWorkers, job_id: str, *, failed: int = 0) -> None:
    hands = fake_workers.take(job_id)
    hands.plan([2, 3])
    hands.work(0)
    hands.work(1, failed=failed)
    hands.finish()


def _newest(tenant: Tenant) -> str | None:
    jobs = tenant.http.get("/v1/jobs").json()["data"]
    return jobs[0]["id"] if jobs else None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.csv", "--model", "/m"], "there is no file nowhere.csv"),
        ([".", "--model", "/m"], "a corpus must be one file, and . is a folder"),
        (["corpus.jsonl"], "Missing option '--model'"),
        (["corpus.jsonl", "--model", "org/bert"], "a model is name@version, name@alias"),
        (
            ["corpus.jsonl", "--model", "/m", "--out", "out.xlsx"],
            "--out must end in .parquet, .jsonl, .csv, and 'out.xlsx' does not",
        ),
        (["corpus.jsonl", "--model", "/m", "--out", "no/out.csv"], "must exist"),
        (["corpus.jsonl", "--model", "/m", "--labels", "one"], "at least two different texts"),
        (["corpus.jsonl", "--model", "/m", "--top-k", "0"], "--top-k must be greater"),
        (["corpus.jsonl", "--model", "/m", "--encoding", "klingon"], "'klingon'"),
        (["corpus.jsonl", "--model", "/m", "--format", "xml"], "'xml'"),
        (["corpus.jsonl", "--model", "/m", "--chunk-rows", "0"], "--chunk-rows must be"),
        (["corpus.jsonl", "--model", "/m", "--modle", "x"], "No such option"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_uploaded(
    run: Run, tenant: Tenant, corpus: Path, arguments: list[str], message: str
) -> None:
    ran = run("classify", *arguments)
    assert ran.code == 2
    assert message in ran.err
    assert ran.err.count("\n") == 1
    assert ran.out == ""
    assert corpus.exists()
    assert tenant.http.get("/v1/files").json()["data"] == []


def test_without_a_terminal_it_submits_and_prints_the_id(
    run: Run, tenant: Tenant, corpus: Path
) -> None:
    ran = run("classify", str(corpus), "--model", "/m", "--name", "mine")
    assert ran.code == 0
    job = tenant.job(ran.out.strip())
    assert (job["name"], job["model"], job["spec"]["output"]["format"]) == ("mine", "/m", None)
    file_id = job["spec"]["corpus"]["file"]
    assert tenant.http.get(f"/v1/files/{file_id}/content").content == corpus.read_bytes()


def test_the_options_reach_the_spec(run: Run, tenant: Tenant, corpus: Path) -> None:
    corpus.write_text("key,body\n1,one\n", encoding="gb18030")
    ran = run(
        *("classify", str(corpus), "--model", "hf:org/name", "--labels", 'A, "B, or C",D'),
        *("--text-column", "body", "--id-column", "key", "--top-k", "2", "--all-scores"),
        *("--multi-label", "--long-texts", "stride", "--format", "csv", "--encoding", "gb18030"),
        *("--chunk-rows", "7", "--pool", "gpu", "--priority", "5", "--keep-text", "--postgres"),
    )
    spec = tenant.job(ran.out.strip())["spec"]
    assert spec["classify"]["labels"] == ["A", "B, or C", "D"]
    assert (spec["classify"]["top_k"], spec["classify"]["long_texts"]) == (2, "stride")
    assert spec["classify"]["all_scores"]
    assert spec["classify"]["multi_label"]
    assert (spec["corpus"]["text_column"], spec["corpus"]["id_column"]) == ("body", "key")
    assert (spec["corpus"]["format"], spec["corpus"]["encoding"]) == ("csv", "gb18030")
    assert (spec["chunk_rows"], spec["pool"], spec["priority"]) == (7, "gpu", 5)
    assert (spec["output"]["keep_text"], spec["output"]["postgres"]) == (True, True)


def test_a_local_model_folder_is_made_absolute(
    run: Run, tenant: Tenant, corpus: Path, tmp_path: Path
) -> None:
    tiny_classifier(tmp_path / "tiny")
    ran = run("classify", str(corpus), "--model", "tiny")
    assert tenant.job(ran.out.strip())["model"] == str(tmp_path / "tiny")


def test_an_uploaded_file_is_taken_by_its_id(run: Run, tenant: Tenant) -> None:
    file_id = tenant.upload()
    ran = run("classify", file_id, "--model", "/m")
    assert tenant.job(ran.out.strip())["spec"]["corpus"]["file"] == file_id
    assert len(tenant.http.get("/v1/files").json()["data"]) == 1


def test_a_uri_is_passed_on_and_refused_by_the_api_in_one_line(run: Run) -> None:
    assert run("classify", "file:///allowed/a.csv", "--model", "/m").code == 0
    ran = run("classify", "file:///etc/passwd", "--model", "/m")
    assert ran.code == 2
    assert "file:///etc/passwd" in ran.err
    assert ran.err.count("\n") == 1


def test_with_out_it_waits_and_fetches_the_results(
    run: Run, tenant: Tenant, fake_workers: FakeWorkers, corpus: Path, tmp_path: Path
) -> None:
    def work() -> None:
        wait_until(lambda: _newest(tenant))
        _work(fake_workers, str(_newest(tenant)), failed=1)

    worker = threading.Thread(target=work)
    worker.start()
    ran = run("classify", str(corpus), "--model", "/m", "--out", "out.jsonl")
    worker.join()
    assert ran.code == 0, ran.err
    assert "succeeded: 5 rows, 1 failed" in ran.out
    assert "good   4     80.0%" in ran.out
    assert "results: out.jsonl" in ran.out
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rows] == [0, 1, 2, 3, 4]
    assert not (tmp_path / "out.jsonl.part").exists()


def test_watching_says_what_the_job_does_and_why_it_waits(
    run: Run, tenant: Tenant, fake_workers: FakeWorkers, corpus: Path
) -> None:
    def work() -> None:
        wait_until(lambda: _newest(tenant))
        fake_workers.take(str(_newest(tenant))).fail(code="corpus_empty", message="no rows")

    worker = threading.Thread(target=work)
    worker.start()
    ran = run("classify", str(corpus), "--model", "/m", "--watch")
    worker.join()
    assert ran.code == 5
    assert ran.err.splitlines()[-1].endswith("failed: no rows (corpus_empty)")
    assert "submitted" in ran.err


def test_a_command_that_is_run_twice_with_a_key_is_one_job(
    run: Run, tenant: Tenant, corpus: Path
) -> None:
    command = ("classify", str(corpus), "--model", "/m", "--idempotency-key", "tonight")
    first = run(*command, "--deadline", "2h")
    assert run(*command, "--deadline", "2h").out == first.out
    assert len(tenant.http.get("/v1/files").json()["data"]) == 1
    assert tenant.job(first.out.strip())["spec"]["deadline_seconds"] == 7_200
    other = run(*command, "--deadline", "3h")
    assert (other.code, "was used for" in other.err) == (2, True)


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_the_job_running_and_says_how_to_go_on(
    run: Run, tenant: Tenant, corpus: Path, stop: signal.Signals, code: int
) -> None:
    assert run("jobs", "list").code == 0  # the environment of `run` is the subprocess's
    command = [sys.executable, "-m", "api.cli", "classify", str(corpus), "--model", "/m", "--watch"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        env=os.environ,
        text=True,
        # A test run in the background ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "queued" in line:
            break
    process.send_signal(stop)
    _, err = process.communicate(timeout=20)
    job_id = _newest(tenant)
    assert process.returncode == code
    assert f"{job_id} goes on on the server; watch it with `nightshift jobs watch {job_id}`" in err
    assert f"`nightshift jobs cancel {job_id}`" in err
    assert "Traceback" not in err
    assert tenant.job(str(job_id))["state"] == "queued"
