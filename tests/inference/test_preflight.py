"""What a model cannot do with a job's options fails at load, before the first row, with a code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import pre_tokenizers

from jobs.errors import ModelFailure
from jobs.settings import Settings
from jobs.specs import (
    ClassifyOptions,
    EmbedOptions,
    GenerateOptions,
    Options,
    Text2TextOptions,
)
from tests.inference.building import no_beat
from tests.support import bad_models
from workers.inference import engine

ONE = Settings(worker_threads=1)
SHORT = GenerateOptions(max_new_tokens=4)
SHORT_2 = Text2TextOptions(max_new_tokens=4)
NULLS = {"decoder_start_token_id": None, "bos_token_id": None, "forced_bos_token_id": None}
FEW = "model_few_embeddings"
BOTH = ("config.json", "generation_config.json")

Build = Callable[[Path], Path]


def added(build: Any) -> Build:
    return lambda folder: bad_models.with_tokens(folder, ["<one>", "<two>"], build)


def generation(build: Any, **fields: Any) -> Build:
    return lambda folder: bad_models.changed(build(folder), "generation_config.json", **fields)


def few_labels(folder: Path) -> Path:
    return bad_models.changed(bad_models.bert(folder), id2label={"0": "a", "1": "b"}, label2id={})


def no_start(folder: Path) -> Path:
    return bad_models.changed(bad_models.bart(folder), *BOTH, **NULLS)


def short_decoder(folder: Path) -> Path:
    return bad_models.bart(folder, max_position_embeddings=32)


def layers(folder: Path) -> Path:
    return bad_models.changed(bad_models.bert(folder), num_hidden_layers=10**7)


def wide(folder: Path) -> Path:
    return bad_models.changed(bad_models.bert(folder), vocab_size=10**12)


def wrong_width(folder: Path) -> Path:
    return bad_models.changed(bad_models.bert(folder), intermediate_size=48)


def always_panics(folder: Path) -> Path:
    made = bad_models.backend()
    made.pre_tokenizer = pre_tokenizers.FixedLength(length=0)
    return bad_models.words(bad_models.bert(folder), made)


FAULTS: dict[str, tuple[Build, Options, str, tuple[str, ...]]] = {
    "16 classify": (
        added(bad_models.bert),
        ClassifyOptions(),
        "model_few_embeddings",
        ("45", "44"),
    ),
    "16 embed": (added(bad_models.bert), EmbedOptions(), "model_few_embeddings", ("45", "44")),
    "16 generate": (added(bad_models.llama), SHORT, "model_few_embeddings", ("45", "44")),
    "16 text2text": (added(bad_models.bart), SHORT_2, "model_few_embeddings", ("45", "44")),
    "20": (short_decoder, Text2TextOptions(), "model_too_short", ("32", "128")),
    "21": (no_start, SHORT_2, "model_no_start_token", ("decoder_start_token_id",)),
    "25": (few_labels, ClassifyOptions(), "model_unreadable", ("id2label", "2 names", "size 3")),
    "a tensor of another shape": (
        wrong_width,
        ClassifyOptions(),
        "model_unreadable",
        ("(32,", "(48,"),
    ),
    "ten million layers": (
        layers,
        ClassifyOptions(),
        "model_unreadable",
        ("10,000,000", "tensors"),
    ),
    "a vocabulary like no other": (wide, EmbedOptions(), "model_unreadable", ("larger than 64",)),
    "contrastive search": (
        generation(bad_models.llama, penalty_alpha=0.6, top_k=4),
        SHORT,
        "generation_unsupported",
        ("penalty_alpha 0.6",),
    ),
    "DoLa": (
        generation(bad_models.llama, dola_layers="high"),
        SHORT,
        "generation_unsupported",
        ("dola_layers high",),
    ),
    "beams in groups": (
        generation(bad_models.bart, num_beams=4, num_beam_groups=2, diversity_penalty=0.5),
        SHORT_2,
        "generation_unsupported",
        ("num_beam_groups 2",),
    ),
    "constraints": (
        generation(bad_models.bart, num_beams=4, force_words_ids=[[5]]),
        SHORT_2,
        "generation_unsupported",
        ("force_words_ids",),
    ),
    "a token that is forced and is none": (
        generation(bad_models.bart, forced_bos_token_id=5_000),
        SHORT_2,
        "model_raises",
        ("IndexError",),
    ),
    "a tokenizer that always panics": (
        always_panics,
        ClassifyOptions(),
        "model_raises",
        ("PanicException", "the tokenizer"),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_a_model_cannot_do_fails_at_load_with_a_code_and_both_numbers(
    tmp_path: Path, name: str
) -> None:
    build, options, code, words = FAULTS[name]
    folder = build(tmp_path / "model")
    with pytest.raises(ModelFailure) as caught:
        engine.load(folder, options, settings=ONE)
    assert caught.value.code == code
    for word in words:
        assert word in caught.value.message


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
        engine.load(folder, SHORT, settings=ONE).answer(rows, beat=no_beat)
        for folder in (plain, faster)
    ]
    assert both[0] == both[1]


def test_as_many_new_tokens_as_the_decoder_has_positions_are_written(tmp_path: Path) -> None:
    folder = short_decoder(tmp_path / "model")
    options = Text2TextOptions(max_new_tokens=32)
    answer: Any = engine.load(folder, options, settings=ONE).answer({0: "w1 w2"}, beat=no_beat)[0]
    assert (answer.output_tokens, answer.finish_reason) == (32, "length")


def test_labels_without_names_are_numbered_as_the_library_numbers_them(tmp_path: Path) -> None:
    folder = bad_models.without(bad_models.bert(tmp_path / "model"), "id2label", "label2id")
    bad_models.changed(folder, num_labels=3)
    answer: Any = engine.load(folder, ClassifyOptions(all_scores=True), settings=ONE)
    found = answer.answer({0: "w1 w2"}, beat=no_beat)[0]
    assert sorted(found.labels) == ["LABEL_0", "LABEL_1", "LABEL_2"]
