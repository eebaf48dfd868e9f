"""Options of the commands of bulk work: each lands in the spec of the job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer.main

from api.cli import app
from jobs import kinds
from tests.api.cli.conftest import Run
from tests.api.server.installation import Tenant

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
            *("--labels", "a,b", "--hypothesis", "of {}", "--top-k", "2"),
            *("--all-scores", "--multi-label"),
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
"""Every option of each kind and its part of the spec; options that exclude each other apart."""


def defaults(kind: str) -> dict[str, Any]:
    """A kind's part of a spec without any options."""
    spec = kinds.bulk({"kind": kind, "model": "/m", "corpus": {"uri": "file:///a.csv"}})
    return spec.options.model_dump(mode="json")


def submitted(run: Run, tenant: Tenant, *arguments: str) -> dict[str, Any]:
    """The spec of the job that this command submits."""
    ran = run(*arguments)
    assert ran.code == 0, ran.err
    return dict(tenant.job(ran.out.strip())["spec"])


@pytest.mark.parametrize("case", GIVEN)
def test_every_option_of_a_kind_lands_in_the_spec(
    run: Run, tenant: Tenant, corpus: Path, case: str
) -> None:
    kind, (arguments, expected) = case.split(maxsplit=1)[0], GIVEN[case]
    spec = submitted(run, tenant, kind, str(corpus), "--model", "/m", *arguments)
    assert (spec["kind"], spec[kind]) == (kind, expected)


@pytest.mark.parametrize("case", GIVEN)
def test_the_case_of_a_kind_has_every_option(case: str) -> None:
    _, expected = GIVEN[case]
    assert set(expected) == set(defaults(case.split(maxsplit=1)[0]))


@pytest.mark.parametrize("kind", KINDS)
def test_an_option_that_is_left_out_has_the_default_of_the_spec(
    run: Run, tenant: Tenant, corpus: Path, kind: str
) -> None:
    spec = submitted(run, tenant, kind, str(corpus), "--model", "/m")
    assert spec[kind] == defaults(kind)


def test_an_empty_prompt_differs_from_none(run: Run, tenant: Tenant, corpus: Path) -> None:
    spec = submitted(run, tenant, "embed", str(corpus), "--model", "/m", "--prompt", "")
    assert spec["embed"]["prompt"] == ""
    assert defaults("embed")["prompt"] is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_corpus_is_uploaded_as_it_is(run: Run, tenant: Tenant, corpus: Path, kind: str) -> None:
    file_id = submitted(run, tenant, kind, str(corpus), "-m", "/m")["corpus"]["file"]
    assert tenant.http.get(f"/v1/files/{file_id}/content").content == corpus.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_takes_the_options_of_a_corpus(
    run: Run, tenant: Tenant, corpus: Path, kind: str
) -> None:
    columns = ("--text-column", "body", "--id-column", "key")
    file_format = ("--format", "csv", "--encoding", "gb18030")
    corpus.write_text("key,body\n1,one\n", encoding="gb18030")
    spec = submitted(run, tenant, kind, str(corpus), "-m", "/m", *columns, *file_format)
    assert (spec["corpus"]["text_column"], spec["corpus"]["id_column"]) == ("body", "key")
    assert (spec["corpus"]["format"], spec["corpus"]["encoding"]) == ("csv", "gb18030")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_takes_the_options_of_a_job(
    run: Run, tenant: Tenant, corpus: Path, kind: str
) -> None:
    spec = submitted(
        run,
        tenant,
        *(kind, str(corpus), "-m", "hf:org/name", "--name", "tonight", "--chunk-rows", "7"),
        *("--pool", "gpu", "--priority", "5", "--keep-text", "--postgres"),
    )
    assert (spec["model"], spec["name"], spec["chunk_rows"]) == ("hf:org/name", "tonight", 7)
    assert (spec["pool"], spec["priority"]) == ("gpu", 5)
    assert (spec["output"]["keep_text"], spec["output"]["postgres"]) == (True, True)


SECOND_COLUMNS = [
    ("classify", "pair_column"),
    ("score", "pair_column"),
    ("generate", "settings_column"),
]


@pytest.mark.parametrize(("kind", "option"), SECOND_COLUMNS)
def test_a_second_column_is_part_of_the_corpus(
    run: Run, tenant: Tenant, corpus: Path, kind: str, option: str
) -> None:
    flag = "--" + option.replace("_", "-")
    corpus.write_text('{"text": "one", "beside": "{}"}\n')
    spec = submitted(run, tenant, kind, str(corpus), "--model", "/m", flag, "beside")
    assert spec["corpus"][option] == "beside"


@pytest.mark.parametrize(("kind", "option"), SECOND_COLUMNS)
def test_a_corpus_has_no_second_column_by_default(
    run: Run, tenant: Tenant, corpus: Path, kind: str, option: str
) -> None:
    assert submitted(run, tenant, kind, str(corpus), "--model", "/m")["corpus"][option] is None


@pytest.mark.parametrize("option", sorted({option for _, option in SECOND_COLUMNS}))
def test_a_second_column_is_no_option_of_another_kind(run: Run, corpus: Path, option: str) -> None:
    refused = run("embed", str(corpus), "--" + option.replace("_", "-"), "beside")
    assert "No such option" in refused.err


@pytest.mark.parametrize(("given", "kept"), [("10%", "10%"), ("0.25", "0.25"), ("25", "25")])
def test_max_failed_lands_in_the_spec(
    run: Run, tenant: Tenant, corpus: Path, given: str, kept: str
) -> None:
    spec = submitted(run, tenant, "embed", str(corpus), "--model", "/m", "--max-failed", given)
    assert spec["max_failed"] == kept


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_has_a_help_text(kind: str) -> None:
    command = typer.main.get_command(app).commands[kind]  # type: ignore[attr-defined]
    assert [param.name for param in command.params if not param.help] == []


def test_with_json_the_job_is_printed_as_it_was_accepted(
    run: Run, tenant: Tenant, corpus: Path
) -> None:
    ran = run("generate", str(corpus), "--model", "/m", "--json")
    job = json.loads(ran.out)
    assert (job["kind"], job["state"]) == ("generate", "queued")
    assert tenant.job(job["id"])["spec"]["generate"] == defaults("generate")
