"""Preflight: what a model cannot do with a job's options fails at load, with a code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from jobs.errors import ModelFailure
from jobs.kinds import ClassifyOptions, Text2TextOptions
from jobs.row_codes import RowCode
from jobs.settings import Settings
from tests.support import bad_models
from tests.workers.inference.builders import no_beat
from workers.inference import engine
from workers.inference.batching.forward import RowError

ONE = Settings(worker_threads=1)


@pytest.mark.parametrize("name", bad_models.FAULTS)
def test_what_a_model_cannot_do_fails_at_load_with_a_code_and_both_numbers(
    tmp_path: Path, name: str
) -> None:
    build, options, code, words = bad_models.FAULTS[name]
    folder = build(tmp_path / "model")
    with pytest.raises(ModelFailure) as caught:
        engine.load(folder, options, settings=ONE)
    assert caught.value.code == code
    for word in words:
        assert word in caught.value.message


@pytest.mark.parametrize(
    ("build", "options"),
    [(bad_models.bert, ClassifyOptions()), (bad_models.llama, bad_models.SHORT)],
    ids=["classify", "generate"],
)
def test_a_special_token_without_an_embedding_harms_only_the_rows_that_spell_it_out(
    tmp_path: Path, build: Any, options: Any
) -> None:
    folder = build(tmp_path / "model")
    tokenizers: Any = AutoTokenizer
    tokenizer = tokenizers.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "<filling>"})
    tokenizer.save_pretrained(folder)
    rows = {0: "w1 w2 w3", 1: "w1 <filling> w2", 2: "w4"}
    answers = engine.load(folder, options, settings=ONE).answer(rows, beat=no_beat)
    assert [row for row, each in answers.items() if isinstance(each, RowError)] == [1]
    assert answers[1].code is RowCode.ROW_FAILED
    assert "has 44 rows" in answers[1].message


@pytest.mark.parametrize(
    "fields",
    [{"prompt_lookup_num_tokens": 3}, {"assistant_early_exit": 1}],
    ids=lambda fields: next(iter(fields)),
)
def test_what_only_makes_generation_faster_changes_no_text(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    rows = dict(enumerate(bad_models.texts(6)))
    plain = bad_models.llama(tmp_path / "plain")
    faster = bad_models.changed(
        bad_models.llama(tmp_path / "faster"), "generation_config.json", **fields
    )
    both = [
        engine.load(folder, bad_models.SHORT, settings=ONE).answer(rows, beat=no_beat)
        for folder in (plain, faster)
    ]
    assert both[0] == both[1]


def test_as_many_new_tokens_as_the_decoder_has_positions_are_generated(tmp_path: Path) -> None:
    folder = bad_models.short_decoder(tmp_path / "model")
    options = Text2TextOptions(max_new_tokens=32)
    answer: Any = engine.load(folder, options, settings=ONE).answer({0: "w1 w2"}, beat=no_beat)[0]
    assert (answer.output_tokens, answer.finish_reason) == (32, "length")


def test_labels_without_names_are_numbered_as_the_library_numbers_them(tmp_path: Path) -> None:
    folder = bad_models.without(bad_models.bert(tmp_path / "model"), "id2label", "label2id")
    bad_models.changed(folder, num_labels=3)
    answer: Any = engine.load(folder, ClassifyOptions(all_scores=True), settings=ONE)
    found = answer.answer({0: "w1 w2"}, beat=no_beat)[0]
    assert sorted(found.labels) == ["LABEL_0", "LABEL_1", "LABEL_2"]
