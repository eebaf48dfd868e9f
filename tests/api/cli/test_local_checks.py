"""What is found wrong before anything is uploaded, by what the planner and the worker check."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.api.cli.conftest import Run
from tests.api.server.installation import Tenant
from tests.support.tiny_models import tiny_classifier

CLASSIFY = ("--model", "/m")
FINETUNE = ("--base", "/m", "--name", "news")


@pytest.mark.parametrize(
    ("name", "content", "command", "arguments", "message"),
    [
        ("a.csv", "text,id\nx,1\n", "classify", ["--text-column", "body"], "pass --text-column"),
        ("a.csv", "text,id\nx,1\n", "classify", ["--id-column", "key"], "pass --id-column"),
        ("a.csv", "text,id\nx,1\n", "score", ["--pair-column", "b"], "pass --pair-column"),
        ("a.csv", "a,b\nx,1\n", "embed", [], "pass --text-column"),
        ("a.csv", "", "classify", [], "holds no rows, not even a header"),
        ("a.csv", "text,id\n", "classify", [], "holds no rows"),
        ("a.jsonl", "\n\n", "embed", [], "holds no rows"),
        ("a.rows", "text\nx\n", "classify", [], "pass --format as one of jsonl, csv"),
        ("a.parquet", "text\nx\n", "classify", [], "it is not a whole Parquet file"),
        ("a.csv", "text,label\nx,a\n", "finetune", ["--target-column", "topic"], "pass --target-"),
        ("a.csv", "text,a,b\nx,1,2\n", "finetune", [], "pass --target-column"),
        ("a.csv", "text\nx\n", "evaluate", ["--text-column", "body"], "pass --text-column"),
    ],
)
def test_a_corpus_that_the_planner_would_refuse_is_not_uploaded(
    run: Run,
    tenant: Tenant,
    tmp_path: Path,
    name: str,
    content: str,
    command: str,
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / name).write_text(content)
    needed = FINETUNE if command == "finetune" else CLASSIFY
    ran = run(command, name, *needed, *arguments)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert message in ran.err
    assert tenant.http.get("/v1/files").json()["data"] == []


def test_a_folder_must_be_a_model_for_the_kind(
    run: Run, tenant: Tenant, corpus: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    model = tmp_path / "tiny"
    tiny_classifier(model)
    assert "there is no config.json in" in run("embed", str(corpus), "-m", "empty").err
    assert "model" in run("generate", str(corpus), "-m", "tiny").err
    assert tenant.http.get("/v1/files").json()["data"] == []
    (model / "model.safetensors").write_bytes(b"\0" * 64)
    ran = run("classify", str(corpus), "-m", "tiny")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert tenant.http.get("/v1/files").json()["data"] == []


@pytest.mark.parametrize(
    "command",
    [
        ("classify", "corpus.jsonl", "--model", "/m", "--out"),
        ("jobs", "results", "job_1", "--out"),
        ("files", "download", "file-1", "--out"),
        ("models", "download", "news@1", "--out"),
    ],
)
def test_what_is_there_is_not_written_over_without_force(
    run: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "there.jsonl").write_text("mine")
    (tmp_path / "corpus.jsonl").write_text('{"text": "one"}\n')
    ran = run(*command, "there.jsonl")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "there.jsonl exists" in ran.err or "there.jsonl is a file" in ran.err
    assert "no/x.jsonl" not in run(*command, "no/x.jsonl").out
    assert "must exist: make it" in run(*command, "no/x.jsonl").err
    assert (tmp_path / "there.jsonl").read_text() == "mine"


def test_force_writes_over_it(run: Run, tenant: Tenant, tmp_path: Path) -> None:
    file_id = tenant.upload(b"new")
    (tmp_path / "there").write_text("old")
    assert run("files", "download", file_id, "--out", "there").code == 2
    assert run("files", "download", file_id, "--out", "there", "--force").code == 0
    assert (tmp_path / "there").read_text() == "new"
