from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from jobs.errors import CorpusFailure, ModelFailure
from tests.support.tiny_models import LABELS, SENTENCES, tiny_classifier
from tests.workers.evaluation.builders import (
    WINDOW,
    adapter,
    config_file,
    report_here,
    reports,
    run,
    tiny_translator,
    tiny_writer,
    write_split,
)
from tests.workers.inference.builders import some_texts
from workers.training import metrics

FAULT, DONE, STOPPED = 65, 0, 75


def opened(folder: Path, auto: Any) -> tuple[Any, Any]:
    tokenizers: Any = AutoTokenizer
    return tokenizers.from_pretrained(folder), auto.from_pretrained(folder).eval()


def logits_of(folder: Path, texts: list[str]) -> torch.Tensor:
    """The logits of transformers, one text at a time."""
    tokenizer, model = opened(folder, AutoModelForSequenceClassification)
    bound = {"truncation": True, "return_tensors": "pt"}
    with torch.inference_mode():
        return torch.cat([model(**tokenizer(text, **bound)).logits for text in texts])


def labelled(count: int) -> list[tuple[str, str]]:
    texts = some_texts(count, longest=20)
    return [(text, LABELS[place % len(LABELS)]) for place, text in enumerate(texts)]


def test_two_classifiers_are_reported_on_the_same_rows(tmp_path: Path) -> None:
    rows = labelled(40)
    write_split(tmp_path, rows)
    folders = {
        "candidate": tiny_classifier(tmp_path / "one", seed=1),
        "incumbent": tiny_classifier(tmp_path / "two", labels=LABELS[::-1], seed=2),
    }
    status, messages = run(config_file(tmp_path, task="classify", models=folders))
    assert status == DONE
    assert messages[-1] == {"type": "done"}
    progress = [each for each in messages if each["type"] == "progress"]
    assert {each["rows_total"] for each in progress if "rows_total" in each} == {80}
    assert [each["phase"] for each in messages if each["type"] == "phase"] == [
        "loading",
        "evaluating",
    ] * 2
    report = reports(tmp_path)
    for name, names in (("candidate", LABELS), ("incumbent", LABELS[::-1])):
        logits = logits_of(folders[name], [text for text, _ in rows])
        truth = torch.tensor([names.index(label) for _, label in rows])
        loss = torch.nn.functional.cross_entropy(logits, truth).item()
        expected = metrics.classification(
            names, truth=truth.numpy(), logits=logits.numpy(), loss=loss
        )
        assert report[name].pop("loss") == pytest.approx(expected.pop("loss"), abs=1e-4)
        assert report[name] == expected


def test_a_multi_label_model_is_reported_by_exact_match(tmp_path: Path) -> None:
    texts = some_texts(20)
    chosen = [list(LABELS[: place % 3]) for place in range(20)]
    write_split(
        tmp_path, [(text, json.dumps(each)) for text, each in zip(texts, chosen, strict=True)]
    )
    folder = tiny_classifier(tmp_path / "model", multi_label=True)
    path = config_file(tmp_path, task="classify", multi_label=True, models={"candidate": folder})
    report = report_here(path)["candidate"]
    flags = torch.tensor([[label in each for label in LABELS] for each in chosen])
    logits = logits_of(folder, texts)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, flags.float()).item()
    expected = metrics.classification(LABELS, truth=flags.numpy(), logits=logits.numpy(), loss=loss)
    assert report.pop("loss") == pytest.approx(expected.pop("loss"), abs=1e-4)
    assert report == expected


def test_a_language_models_perplexity_is_that_of_its_own_tokens(tmp_path: Path) -> None:
    texts = [" ".join(SENTENCES[:place]) for place in range(1, 6)]
    write_split(tmp_path, [(text, None) for text in texts])
    folder = tiny_writer(tmp_path / "model")
    report = report_here(config_file(tmp_path, task="generate", models={"candidate": folder}))[
        "candidate"
    ]
    tokenizer, model = opened(folder, AutoModelForCausalLM)
    losses, tokens = 0.0, 0
    for text in texts:
        ids = (tokenizer(text)["input_ids"] + [tokenizer.eos_token_id])[:WINDOW]
        inputs = torch.tensor([ids])
        with torch.inference_mode():
            losses += model(input_ids=inputs, labels=inputs).loss.item() * (len(ids) - 1)
        tokens += len(ids) - 1
    assert (report["task"], report["rows"], report["tokens"]) == ("generate", 5, tokens)
    assert report["loss"] == pytest.approx(losses / tokens, rel=1e-4)
    assert report["perplexity"] == pytest.approx(math.exp(losses / tokens), rel=1e-3)


def test_only_the_tokens_of_a_completion_count(tmp_path: Path) -> None:
    write_split(tmp_path, [(SENTENCES[0], " Shares fell."), (SENTENCES[1], " The team won.")])
    folder = tiny_writer(tmp_path / "model")
    report = report_here(config_file(tmp_path, task="generate", models={"candidate": folder}))[
        "candidate"
    ]
    tokenizer, _ = opened(folder, AutoModelForCausalLM)
    completions = (" Shares fell.", " The team won.")
    expected = sum(len(tokenizer(text)["input_ids"]) + 1 for text in completions)
    assert report["tokens"] == expected


def test_a_translator_generates_and_is_scored_by_bleu_and_chrf(tmp_path: Path) -> None:
    rows = list(zip(SENTENCES[:5], SENTENCES[5:], strict=True))
    write_split(tmp_path, rows)
    folder = tiny_translator(tmp_path / "model")
    assert run(config_file(tmp_path, task="text2text", models={"candidate": folder}))[0] == DONE
    report = reports(tmp_path)["candidate"]
    assert report["rows"] == 5
    assert report["bleu_tokenizer"] == "zh"
    tokenizer, model = opened(folder, AutoModelForSeq2SeqLM)
    generated = []
    for text, reference in rows:
        limit = 2 * len(tokenizer(text_target=reference)["input_ids"]) + 16
        inputs = tokenizer(text, return_tensors="pt")
        ids = model.generate(**inputs, max_new_tokens=limit, do_sample=False)
        generated.append(tokenizer.decode(ids[0], skip_special_tokens=True).strip())
    expected = metrics.translation(generated, [reference for _, reference in rows])
    assert report["chrf"] == pytest.approx(expected["chrf"])
    assert report["bleu"] == pytest.approx(expected["bleu"])
    assert report["perplexity"] == pytest.approx(math.exp(report["loss"]))


def test_an_adapter_is_evaluated_merged_into_its_base(tmp_path: Path) -> None:
    rows = labelled(30)
    write_split(tmp_path, rows)
    base = tiny_classifier(tmp_path / "base-model", labels=("x", "y"), seed=3)
    added = adapter(tmp_path / "adapter", base=base)
    merged = tmp_path / "adapter-merged"
    path = config_file(tmp_path, task="classify", models={"added": added, "merged": merged})
    report = report_here(path)
    assert report["added"].pop("loss") == pytest.approx(report["merged"].pop("loss"), abs=1e-4)
    assert report["added"] == report["merged"]


def test_a_fault_is_a_message_and_an_exit_status(tmp_path: Path) -> None:
    write_split(tmp_path, [("a", "sports"), ("b", "weather")])
    folder = tiny_classifier(tmp_path / "model")
    status, messages = run(config_file(tmp_path, task="classify", models={"champion": folder}))
    assert status == FAULT
    assert messages[-1]["type"] == "fault"
    assert messages[-1]["code"] == "unknown_label"
    assert not (tmp_path / "reports.json").exists()


def test_a_requested_stop_ends_the_program_without_a_report(tmp_path: Path) -> None:
    write_split(tmp_path, labelled(3))
    (tmp_path / "stop").touch()
    folder = tiny_classifier(tmp_path / "model")
    status, messages = run(config_file(tmp_path, task="classify", models={"candidate": folder}))
    assert status == STOPPED
    assert messages[-1]["type"] == "stopped"
    assert not (tmp_path / "reports.json").exists()


@pytest.mark.parametrize(
    ("multi_label", "target"), [(False, "weather"), (True, '["sports", "weather"]')]
)
def test_a_label_that_the_model_lacks_is_named(
    multi_label: bool,  # noqa: FBT001
    target: str,
    tmp_path: Path,
) -> None:
    write_split(tmp_path, [("a", '["sports"]' if multi_label else "sports"), ("b", target)])
    folder = tiny_classifier(tmp_path / "model", multi_label=multi_label)
    path = config_file(
        tmp_path, task="classify", multi_label=multi_label, models={"champion": folder}
    )
    with pytest.raises(CorpusFailure, match=r"champion.*'weather'") as raised:
        report_here(path)
    assert raised.value.code == "unknown_label"


def test_a_split_without_rows_is_a_fault(tmp_path: Path) -> None:
    write_split(tmp_path, [])
    folder = tiny_classifier(tmp_path / "model")
    with pytest.raises(CorpusFailure, match="one at least") as raised:
        report_here(config_file(tmp_path, task="classify", models={"candidate": folder}))
    assert raised.value.code == "split_empty"


def test_a_model_with_a_pickle_is_a_fault(tmp_path: Path) -> None:
    write_split(tmp_path, labelled(3))
    folder = tiny_classifier(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelFailure) as raised:
        report_here(config_file(tmp_path, task="classify", models={"candidate": folder}))
    assert raised.value.code == "model_not_safetensors"


def test_booleans_match_the_labels_of_a_model_in_any_spelling(
    tmp_path: Path,
) -> None:
    texts = some_texts(10, longest=20)
    write_split(tmp_path, [(text, ("true", "false")[n % 2]) for n, text in enumerate(texts)])
    folder = tiny_classifier(tmp_path / "one", labels=("FALSE", "TRUE"), seed=1)
    status, _ = run(config_file(tmp_path, task="classify", models={"candidate": folder}))
    assert status == DONE
    assert set(reports(tmp_path)["candidate"]["labels"]) == {"false", "true"}
