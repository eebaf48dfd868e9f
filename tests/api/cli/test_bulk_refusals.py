"""What the commands of bulk work refuse: one line on stderr, and nothing is uploaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import kinds
from tests.api.cli.conftest import Run
from tests.api.server.installation import Tenant

KINDS = sorted(kinds.BULK)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("classify", ["--threshold", "1"], "--threshold must be less than 1, not '1.0'"),
        ("classify", ["--max-tokens", "7"], "--max-tokens must be greater"),
        ("embed", ["--dimensions", "0"], "--dimensions must be greater than or equal to 1"),
        ("embed", ["--dimensions", "half"], "--dimensions must be a whole number, not 'half'"),
        ("embed", ["--pooling", "sum"], "'sum'"),
        ("embed", ["--stride", "-1"], "--stride must be greater than or equal to 0"),
        ("embed", ["--dtype", "int8"], "'int8'"),
        ("embed", ["--labels", "a,b"], "No such option"),
        ("generate", ["--top-k", "5"], "--top-k and --top-p are for sampling: set a temperature"),
        ("generate", ["--top-p", "0.9"], "--top-k and --top-p are for sampling: set a temperature"),
        ("generate", ["--stop", ""], "a stop text must not be empty"),
        ("generate", ["--temperature", "-1"], "--temperature must be greater"),
        ("generate", ["--temperature", "nan"], "--temperature must be"),
        ("generate", ["--no-chat", "--system", "s"], "a system message is for chats"),
        ("generate", ["--max-new-tokens", "0"], "--max-new-tokens must be greater"),
        ("text2text", ["--stop", "a", "--stop", ""], "a stop text must not be empty"),
        ("text2text", ["--beams", "0"], "--beams must be greater than or equal to 1"),
        ("text2text", ["--temperature", "1"], "No such option"),
        ("embed", ["--max-failed", "half"], "--max-failed must be a share, such as 0.1 or 10%"),
        ("text2text", ["--out", "out.txt"], "--out must end in .parquet, .jsonl, .csv"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_uploaded(
    run: Run, tenant: Tenant, corpus: Path, kind: str, arguments: list[str], message: str
) -> None:
    ran = run(kind, str(corpus), "--model", "/m", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert ran.err.count("\n") == 1
    assert tenant.http.get("/v1/files").json()["data"] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_corpus_must_exist(run: Run, kind: str) -> None:
    assert "there is no file nowhere.csv" in run(kind, "nowhere.csv", "--model", "/m").err


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_must_be_given(run: Run, corpus: Path, kind: str) -> None:
    assert "Missing option '--model'" in run(kind, str(corpus)).err


@pytest.mark.parametrize("kind", KINDS)
def test_a_corpus_must_be_given(run: Run, kind: str) -> None:
    assert "Missing argument" in run(kind, "--model", "/m").err


def test_rows_to_explain_must_be_places(run: Run, corpus: Path) -> None:
    ran = run("classify", str(corpus), "--model", "/m", "--explain-rows", "1,two")
    assert ran.code == 2
    assert "--explain-rows must be places in the corpus from 0, such as 0,17,42" in ran.err


def test_a_parameter_must_have_a_name_and_a_value(run: Run, corpus: Path) -> None:
    ran = run("pipeline", str(corpus), "--model", "/m", "--parameter", "top_k")
    assert ran.code == 2
    assert "--parameter must be NAME=VALUE, such as top_k=3, not 'top_k'" in ran.err
