"""Corpora of several files on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.inputs import Input
from tests.api.cli.conftest import Run
from tests.api.server.conftest import FakeWorkers
from tests.api.server.installation import Tenant


def test_a_file_is_uploaded_and_listed_with_its_tag(run: Run, corpus: Path) -> None:
    file_id = run("files", "upload", str(corpus), "--tag", "nightly").out.strip()
    run("files", "upload", str(corpus))
    found = json.loads(run("files", "list", "--tag", "nightly", "--json").out)
    assert [file["id"] for file in found] == [file_id]
    assert run("files", "upload", str(corpus), "--tag", "a b").code == 2


def test_a_corpus_is_several_files_a_tag_or_a_pattern(
    run: Run, tenant: Tenant, corpus: Path
) -> None:
    other = tenant.upload()
    model = ("--model", "/models/tiny", "--no-watch")
    ran = run("classify", str(corpus), "--and", other, "--min-rows", "2", *model)
    assert ran.code == 0, ran.err
    found = tenant.job(ran.out.strip())["spec"]["corpus"]
    assert (found["sources"][1], found["min_rows"], found["file"]) == (other, 2, None)
    assert found["sources"][0].startswith("file-")
    ran = run("classify", "tag:nightly", "--if-empty", "skip", *model)
    found = tenant.job(ran.out.strip())["spec"]["corpus"]
    assert (found["tag"], found["if_empty"]) == ("nightly", "skip")
    assert "tag:nightly" in run("jobs", "list").out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("tag:a", "--and", "s3://b/c"), "a tag or a SQL source stands alone"),
        (("s3://b/c", "--and", "local.csv"), "--and must be the id"),
        (("tag:a b",), "letters, digits"),
        (("tag:a", "--sql-since", "1"), "are for a corpus sql:SOURCE"),
        (("sql:a", "--format", "csv"), "are no file"),
        (("sql:a",), "there is no SQL source 'a' that this project may read; there are none"),
        (("tag:a", "--since", "last_success"), "since is for the job of a schedule"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    run: Run, arguments: tuple[str, ...], problem: str
) -> None:
    ran = run("classify", *arguments, "--model", "/models/tiny")
    assert ran.code == 2
    assert problem in ran.err


def test_what_a_job_reads_is_listed(run: Run, tenant: Tenant, fake_workers: FakeWorkers) -> None:
    job_id = tenant.submit(corpus={"tag": "nightly"})
    fake_workers.take(job_id).plan([2], read=[Input("s3://b/a.csv", "9:x", 9)])
    table = run("jobs", "inputs", job_id).out.splitlines()
    assert table[0].split() == ["SPLIT", "NAME", "ROWS", "SIZE", "SHA256"]
    assert table[1].split()[:2] == ["rows", "s3://b/a.csv"]
    assert json.loads(run("jobs", "inputs", job_id, "--json").out)[0]["bytes"] == 9
