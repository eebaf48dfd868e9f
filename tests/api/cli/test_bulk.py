"""The commands of bulk work: their options, what is refused, what they say at the end."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest
import typer.main

from api.cli import app, progress_bars
from jobs import kinds
from jobs.decisions.result_quality import QualityCounts
from tests.api.cli.conftest import Run
from tests.api.server.conftest import Crew
from tests.api.server.installation import Tenant
from tests.support.waiting import wait_until

KINDS = sorted(kinds.BULK)

GIVEN: dict[str, tuple[list[str], dict[str, Any]]] = {
    "classify": (
        [
            *("--labels", "a,b", "--top-k", "2", "--all-scores", "--multi-label"),
            *("--threshold", "0.25", "--long-texts", "truncate", "--stride", "16"),
            *("--max-tokens", "64", "--dtype", "float32", "--explain-rows", "0,17"),
            *("--explain-every", "100", "--explain-below", "0.5", "--explain-steps", "64"),
        ],
        {
            "labels": ["a", "b"],
            "hypothesis": None,
            "top_k": 2,
            "all_scores": True,
            "multi_label": True,
            "threshold": 0.25,
            "long_texts": "truncate",
            "stride": 16,
            "max_tokens": 64,
            "dtype": "float32",
            "int8": False,
            "explain": {"rows": [0, 17], "every": 100, "below": 0.5, "steps": 64},
        },
    ),
    "classify without gradients": (
        [
            *(
                "--labels",
                "a,b",
                "--hypothesis",
                "of {}",
                "--top-k",
                "2",
                "--all-scores",
                "--multi-label",
            ),
            *("--threshold", "0.25", "--long-texts", "truncate", "--stride", "16"),
            *("--max-tokens", "64", "--dtype", "float32", "--int8"),
        ],
        {
            "labels": ["a", "b"],
            "hypothesis": "of {}",
            "top_k": 2,
            "all_scores": True,
            "multi_label": True,
            "threshold": 0.25,
            "long_texts": "truncate",
            "stride": 16,
            "max_tokens": 64,
            "dtype": "float32",
            "int8": True,
            "explain": None,
        },
    ),
    "embed": (
        [
            *("--pooling", "lasttoken", "--no-normalize", "--dimensions", "256"),
            *("--prompt", "query: ", "--long-texts", "stride", "--stride", "0"),
            *("--max-tokens", "128", "--dtype", "bfloat16"),
        ],
        {
            "pooling": "lasttoken",
            "normalize": False,
            "dimensions": 256,
            "prompt": "query: ",
            "long_texts": "stride",
            "stride": 0,
            "max_tokens": 128,
            "dtype": "bfloat16",
        },
    ),
    "generate": (
        [
            *("--chat", "--system", "Answer in one word.", "--max-new-tokens", "8"),
            *("--stop", "\n", "--stop", "END", "--temperature", "0.7", "--top-p", "0.9"),
            *("--top-k", "40", "--repetition-penalty", "1.1", "--seed", "7", "--dtype", "float32"),
        ],
        {
            "chat": True,
            "system": "Answer in one word.",
            "max_new_tokens": 8,
            "stop": ["\n", "END"],
            "temperature": 0.7,
            "top_p": 0.9,
            "top_k": 40,
            "repetition_penalty": 1.1,
            "seed": 7,
            "dtype": "float32",
        },
    ),
    "pipeline": (
        [
            *("--task", "token-classification", "--parameter", "aggregation_strategy=simple"),
            *("--parameter", "stride=16", "--parameter", 'ignore_labels=["O", "X"]'),
            *("--batch-rows", "4", "--dtype", "float16"),
        ],
        {
            "task": "token-classification",
            "parameters": {
                "aggregation_strategy": "simple",
                "stride": 16,
                "ignore_labels": ["O", "X"],
            },
            "batch_rows": 4,
            "dtype": "float16",
        },
    ),
    "score": (
        [
            *("--activation", "sigmoid", "--long-texts", "stride", "--stride", "8"),
            *("--max-tokens", "64", "--dtype", "float32"),
        ],
        {
            "activation": "sigmoid",
            "long_texts": "stride",
            "stride": 8,
            "max_tokens": 64,
            "dtype": "float32",
        },
    ),
    "text2text": (
        [
            *("--prompt", "summarize: ", "--source-language", "eng_Latn"),
            *("--target-language", "zho_Hans", "--max-new-tokens", "64", "--stop", "END"),
            *("--beams", "4", "--length-penalty", "-0.5", "--no-repeat-ngram", "3"),
            *("--max-tokens", "512", "--dtype", "bfloat16"),
        ],
        {
            "prompt": "summarize: ",
            "source_language": "eng_Latn",
            "target_language": "zho_Hans",
            "max_new_tokens": 64,
            "stop": ["END"],
            "beams": 4,
            "length_penalty": -0.5,
            "no_repeat_ngram": 3,
            "max_tokens": 512,
            "dtype": "bfloat16",
        },
    ),
}
"""Every option of each kind, and its part of the spec; those that exclude each other apart."""


def _defaults(kind: str) -> dict[str, Any]:
    """A kind's part of a spec in which nothing was given."""
    spec = kinds.bulk({"kind": kind, "model": "/m", "corpus": {"uri": "file:///a.csv"}})
    return spec.options.model_dump(mode="json")


def _spec(run: Run, tenant: Tenant, *arguments: str) -> dict[str, Any]:
    ran = run(*arguments)
    assert ran.code == 0, ran.err
    return dict(tenant.job(ran.out.strip())["spec"])


@pytest.mark.parametrize("given", GIVEN)
def test_every_option_of_a_kind_lands_in_the_spec_as_it_was_given(
    run: Run, tenant: Tenant, corpus: Path, given: str
) -> None:
    kind, (arguments, expected) = given.split(maxsplit=1)[0], GIVEN[given]
    assert set(expected) == set(_defaults(kind)), "every option there is must be given"
    spec = _spec(run, tenant, kind, str(corpus), "--model", "/m", *arguments)
    assert (spec["kind"], spec[kind]) == (kind, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_given_is_the_default_of_the_spec(
    run: Run, tenant: Tenant, corpus: Path, kind: str
) -> None:
    spec = _spec(run, tenant, kind, str(corpus), "--model", "/m")
    assert spec[kind] == _defaults(kind)


def test_an_empty_prompt_is_another_thing_than_none(run: Run, tenant: Tenant, corpus: Path) -> None:
    spec = _spec(run, tenant, "embed", str(corpus), "--model", "/m", "--prompt", "")
    assert spec["embed"]["prompt"] == ""
    assert _defaults("embed")["prompt"] is None


@pytest.mark.parametrize("kind", KINDS)
def test_corpus_model_and_output_are_said_in_the_same_way_for_every_kind(
    run: Run, tenant: Tenant, corpus: Path, kind: str
) -> None:
    spec = _spec(
        run,
        tenant,
        *(kind, str(corpus), "-m", "hf:org/name", "--text-column", "body", "--id-column", "key"),
        *("--format", "csv", "--encoding", "gb18030", "--chunk-rows", "7", "--pool", "gpu"),
        *("--priority", "5", "--keep-text", "--postgres", "--name", "tonight"),
    )
    file_id = spec["corpus"]["file"]
    assert tenant.http.get(f"/v1/files/{file_id}/content").content == corpus.read_bytes()
    assert (spec["corpus"]["text_column"], spec["corpus"]["id_column"]) == ("body", "key")
    assert (spec["corpus"]["format"], spec["corpus"]["encoding"]) == ("csv", "gb18030")
    assert (spec["model"], spec["name"], spec["chunk_rows"]) == ("hf:org/name", "tonight", 7)
    assert (spec["pool"], spec["priority"]) == ("gpu", 5)
    assert (spec["output"]["keep_text"], spec["output"]["postgres"]) == (True, True)


@pytest.mark.parametrize(
    ("kind", "option"), [("classify", "pair_column"), ("generate", "settings_column")]
)
def test_a_kinds_second_column_is_said_of_the_corpus(
    run: Run, tenant: Tenant, corpus: Path, kind: str, option: str
) -> None:
    flag = "--" + option.replace("_", "-")
    spec = _spec(run, tenant, kind, str(corpus), "--model", "/m", flag, "beside")
    assert spec["corpus"][option] == "beside"
    assert _spec(run, tenant, kind, str(corpus), "--model", "/m")["corpus"][option] is None
    refused = run(next(other for other in KINDS if other != kind), str(corpus), flag, "beside")
    assert "No such option" in refused.err


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_says_what_it_is_for(kind: str) -> None:
    command = typer.main.get_command(app).commands[kind]  # type: ignore[attr-defined]
    assert [param.name for param in command.params if not param.help] == []


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("classify", ["--threshold", "1"], "classify.threshold: must be less than 1, not '1.0'"),
        ("classify", ["--max-tokens", "7"], "classify.max_tokens: must be greater"),
        ("embed", ["--dimensions", "0"], "embed.dimensions: must be greater than or equal to 1"),
        ("embed", ["--dimensions", "half"], "Invalid value for '--dimensions'"),
        ("embed", ["--pooling", "sum"], "'sum'"),
        ("embed", ["--stride", "-1"], "embed.stride: must be greater than or equal to 0"),
        ("embed", ["--dtype", "int8"], "'int8'"),
        ("embed", ["--labels", "a,b"], "No such option"),
        ("generate", ["--top-k", "5"], "top_k and top_p are for sampling: set a temperature"),
        ("generate", ["--top-p", "0.9"], "top_k and top_p are for sampling: set a temperature"),
        ("generate", ["--stop", ""], "a stop text must not be empty"),
        ("generate", ["--temperature", "-1"], "generate.temperature: must be greater"),
        ("generate", ["--temperature", "nan"], "generate.temperature: must be"),
        ("generate", ["--no-chat", "--system", "s"], "a system message is for chats"),
        ("generate", ["--max-new-tokens", "0"], "generate.max_new_tokens: must be greater"),
        ("text2text", ["--stop", "a", "--stop", ""], "a stop text must not be empty"),
        ("text2text", ["--beams", "0"], "text2text.beams: must be greater than or equal to 1"),
        ("text2text", ["--temperature", "1"], "No such option"),
        ("embed", ["--max-failed", "half"], "max_failed must be a share, such as 0.1 or 10%"),
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
def test_a_corpus_that_is_not_there_and_a_missing_model_are_told_by_every_kind(
    run: Run, corpus: Path, kind: str
) -> None:
    assert "there is no file nowhere.csv" in run(kind, "nowhere.csv", "--model", "/m").err
    assert "Missing option '--model'" in run(kind, str(corpus)).err
    assert "Missing argument" in run(kind, "--model", "/m").err


def test_with_json_the_job_is_printed_as_it_was_accepted(
    run: Run, tenant: Tenant, corpus: Path
) -> None:
    ran = run("generate", str(corpus), "--model", "/m", "--json")
    job = json.loads(ran.out)
    assert (job["kind"], job["state"]) == ("generate", "queued")
    assert tenant.job(job["id"])["spec"]["generate"] == _defaults("generate")


def test_with_out_a_job_that_writes_is_waited_for_and_its_results_are_fetched(
    run: Run, tenant: Tenant, crew: Crew, corpus: Path, tmp_path: Path
) -> None:
    def work() -> None:
        wait_until(lambda: _newest(tenant))
        _work(crew, str(_newest(tenant)))

    worker = threading.Thread(target=work)
    worker.start()
    ran = run("text2text", str(corpus), "--model", "/m", "--out", "out.jsonl")
    worker.join()
    assert ran.code == 0, ran.err
    assert "succeeded: 5 rows, 1 failed, " in ran.out
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 5


def test_the_summary_of_a_job_without_labels_says_how_fast_it_was(
    tenant: Tenant, crew: Crew, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = tenant.submit(corpus={"file": tenant.upload(corpus.read_bytes())})
    _work(crew, job_id)
    job = {**tenant.job(job_id), "rate": 50.0, "histogram": {}, "row_errors": []}
    progress_bars.summary(job)
    said = capsys.readouterr().out
    assert said == f"{job_id} succeeded: 5 rows, 1 failed, 50/s, 150 tokens/s\n"


def test_rows_to_explain_must_be_places(run: Run, corpus: Path) -> None:
    ran = run("classify", str(corpus), "--model", "/m", "--explain-rows", "1,two")
    assert ran.code == 2
    assert "--explain-rows must be places in the corpus from 0, such as 0,17,42" in ran.err


def test_a_parameter_must_have_a_name_and_a_value(run: Run, corpus: Path) -> None:
    ran = run("pipeline", str(corpus), "--model", "/m", "--parameter", "top_k")
    assert ran.code == 2
    assert "--parameter must be NAME=VALUE, such as top_k=3, not 'top_k'" in ran.err


def test_the_summary_of_an_int8_job_says_how_many_labels_agree(
    tenant: Tenant, crew: Crew, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = tenant.submit(corpus={"file": tenant.upload(corpus.read_bytes())})
    hands = crew.on(job_id)
    hands.plan([2, 3])
    hands.work(0, checked=2, agreeing=2)
    hands.work(1, checked=2, agreeing=1)
    hands.finish()
    job = tenant.job(job_id)
    assert job["agreement"] == {"rows": 4, "equal": 3}
    progress_bars.summary(job)
    assert "int8: 75.0% of 4 rows agree with float32" in capsys.readouterr().out


def test_the_summary_has_failed_rows_by_code_with_the_first_of_each(
    tenant: Tenant, crew: Crew, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = tenant.submit(corpus={"file": tenant.upload(corpus.read_bytes())})
    _work(crew, job_id)
    progress_bars.summary(tenant.job(job_id))
    *_, headers, errors = capsys.readouterr().out.splitlines()
    assert headers.split() == ["ERROR", "ROWS", "FIRST", "MESSAGE"]
    assert re.split(r"  +", errors) == ["empty_text", "1", "line 5", "the text is empty"]


def test_the_summary_ends_with_the_warnings(
    tenant: Tenant, crew: Crew, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = tenant.submit()
    hands = crew.on(job_id)
    hands.plan([5])
    hands.work(0, quality=QualityCounts(rows=5, rows_truncated=2, tokens=40, tokens_unknown=1))
    progress_bars.summary(tenant.job(job_id))
    said = capsys.readouterr().out
    assert "\nwarning: 40.0% (2 of 5) of the rows are longer than the model's window" in said
    assert "unknown" not in said


def test_a_job_of_which_every_row_failed_is_an_exit_code_of_1_and_its_reason(
    run: Run, tenant: Tenant, crew: Crew, corpus: Path
) -> None:
    job_id = tenant.submit(corpus={"file": tenant.upload(corpus.read_bytes())})
    hands = crew.on(job_id)
    hands.plan([2, 3])
    hands.work(0, failed=2)
    assert not hands.end_failed()
    hands.work(1, failed=3)
    assert hands.end_failed()
    ran = run("jobs", "watch", job_id)
    assert ran.code == 1
    assert f"{job_id} failed: 5 rows, 5 failed" in ran.out
    assert "empty_text  5     line 1  the text is empty" in ran.out
    assert "has failed rows, the first on line 1: the text is empty (empty_text)" in ran.err
    last = ran.err.splitlines()[-1]
    assert last.startswith(f"nightshift: {job_id} failed: all 5 rows failed: 5 empty_text; such as")
    assert last.endswith("(too_many_failed_rows)")


@pytest.mark.parametrize(("given", "kept"), [("10%", "10%"), ("0.25", "0.25"), ("25", "25")])
def test_how_many_rows_may_fail_lands_in_the_spec(
    run: Run, tenant: Tenant, corpus: Path, given: str, kept: str
) -> None:
    spec = _spec(run, tenant, "embed", str(corpus), "--model", "/m", "--max-failed", given)
    assert spec["max_failed"] == kept


def test_the_summary_of_a_job_that_did_nothing_says_so(
    tenant: Tenant, crew: Crew, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = tenant.submit()
    crew.on(job_id).fail(code="corpus_empty", message="no rows")
    progress_bars.summary(tenant.job(job_id))
    said = capsys.readouterr().out
    assert re.fullmatch(rf"{job_id} failed: 0 rows, 0 failed, (-|0\.0/s)\n", said)


def _work(crew: Crew, job_id: str) -> None:
    """Do the five rows of the corpus, of which the last fails; each is three tokens."""
    hands = crew.on(job_id)
    hands.plan([2, 3])
    hands.work(0)
    hands.work(1, failed=1)
    hands.finish()


def _newest(tenant: Tenant) -> str | None:
    jobs = tenant.http.get("/v1/jobs").json()["data"]
    return jobs[0]["id"] if jobs else None
