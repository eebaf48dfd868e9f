"""Continuous batching: rows leave and join a causal model's batch during generation."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from pydantic import ValidationError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BartConfig,
    BartForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
    Phi3Config,
    Phi3ForCausalLM,
)

from jobs.kinds import GenerateOptions
from jobs.row_codes import RowCode
from jobs.settings import Settings
from tests.support.tiny_writers import LANGUAGES, MAX_TOKENS, tiny_generator
from tests.workers.inference.builders import no_beat, some_texts
from workers.inference import engine
from workers.inference.batching.tokenization import PairedText
from workers.inference.decoding import continuous_batching
from workers.inference.decoding.decoder import Decoder
from workers.inference.decoding.decoding_batch import DecodingBatch
from workers.inference.decoding.text_generation import KV_CACHE_BUDGETS

STEPS = 24
BUDGET = 40

STEP = Decoder.step


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_generator(tmp_path_factory.mktemp("models") / "llama")


class DecodingStep(NamedTuple):
    """One call of ``Decoder.step``."""

    rows: int
    longest: int  # tokens that the longest may have at its end
    new_tokens: frozenset[int]  # tokens that the rows had generated before


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[DecodingStep]:
    steps: list[DecodingStep] = []

    def step(decoder: Decoder, batch: DecodingBatch, **kwargs: Any) -> None:
        longest = max(each.prompt.max_length for each in batch.sequences)
        new_tokens = frozenset(len(each.new_tokens) for each in batch.sequences)
        steps.append(DecodingStep(len(batch.sequences), longest, new_tokens))
        STEP(decoder, batch, **kwargs)

    monkeypatch.setattr(Decoder, "step", step)
    return steps


def answered(folder: Path, texts: dict[int, Any], **options: Any) -> dict[int, Any]:
    settings = Settings(worker_threads=1, batch_tokens=BUDGET)
    generate = GenerateOptions(**{"max_new_tokens": STEPS, **options})
    with pytest.MonkeyPatch.context() as plain:  # the probe at load is not recorded
        plain.setattr(Decoder, "step", STEP)
        model = engine.load(folder, generate, settings=settings)
    return dict(model.answer(texts, beat=no_beat))


def some(count: int) -> dict[int, str]:
    return dict(enumerate(some_texts(count, longest=6)))


@pytest.mark.parametrize("pause", [(0.01, 0.01), (0.25, 0.5), (1.0, 1.0)])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.9, "seed": 4}])
def test_when_rows_leave_and_join_changes_no_text(
    family: str,
    pause: tuple[float, float],
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, texts = tiny_generator(tmp_path / "model", family=family), some(25)
    alone = {row: answered(folder, {row: text}, **options)[row] for row, text in texts.items()}
    monkeypatch.setattr(continuous_batching, "PAUSE", pause[0])
    monkeypatch.setattr(continuous_batching, "LAST_PAUSE", pause[1])
    assert answered(folder, texts, **options) == alone


def test_running_rows_stay_within_the_budget(llama: Path, steps: list[DecodingStep]) -> None:
    assert len(answered(llama, some(40))) == 40
    assert max(step.rows for step in steps) > 1
    assert all(
        step.rows * step.longest <= KV_CACHE_BUDGETS * BUDGET for step in steps if step.rows > 1
    )


def test_rows_leave_when_they_have_ended_and_others_join(
    llama: Path, steps: list[DecodingStep]
) -> None:
    found = answered(llama, some(40))
    assert {answer.finish_reason for answer in found.values()} == {"stop", "length"}
    assert any(len(step.new_tokens) > 1 for step in steps)  # some began later
    pairs = itertools.pairwise(step for step in steps if step.new_tokens != {0})
    assert any(after.rows < before.rows for before, after in pairs)


def test_rows_with_lengths_of_their_own_share_a_batch(
    llama: Path, steps: list[DecodingStep]
) -> None:
    texts = some(30)
    lengths = {row: 1 + row % STEPS for row in texts}
    own = {
        row: PairedText(text, f'{{"max_new_tokens": {lengths[row]}}}')
        for row, text in texts.items()
    }
    found = answered(llama, own)
    assert max(step.rows for step in steps) > 3
    for row, text in texts.items():
        assert found[row] == answered(llama, {row: text}, max_new_tokens=lengths[row])[row]


def small(monkeypatch: pytest.MonkeyPatch, *, rows: int, at: int) -> None:
    """A device that runs out of memory with more rows in a batch, at this token of a step."""

    def step(decoder: Decoder, batch: DecodingBatch, **kwargs: Any) -> None:
        tokens = iter(range(STEPS))

        def beat() -> None:
            if next(tokens) == at and len(batch.sequences) > rows:
                raise torch.OutOfMemoryError("out of memory")

        STEP(decoder, batch, **{**kwargs, "beat": beat})

    monkeypatch.setattr(Decoder, "step", step)


@pytest.mark.parametrize("at", [0, 3])
def test_memory_that_runs_out_costs_no_row(
    llama: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = answered(llama, some(30))
    small(monkeypatch, rows=2, at=at)
    assert answered(llama, some(30)) == expected


def test_a_prompt_that_does_not_fit_alone_is_an_error_of_its_row(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch, rows=0, at=0)
    found = answered(llama, some(5))
    assert [found[row].code for row in range(5)] == 5 * [RowCode.OUT_OF_MEMORY]


def test_a_special_token_may_be_a_stop_sequence(llama: Path) -> None:
    """It is not in the output."""
    tokenizers: Any = AutoTokenizer
    models: Any = AutoModelForCausalLM
    tokenizer, model = tokenizers.from_pretrained(llama), models.from_pretrained(llama).eval()
    texts, marks = some(40), set(tokenizer.convert_tokens_to_ids(list(LANGUAGES)))
    found = answered(llama, texts, stop=LANGUAGES)
    stopped = 0
    for row, text in texts.items():
        inputs = tokenizer(text, return_tensors="pt")
        ids = model.generate(**inputs, max_new_tokens=STEPS, do_sample=False)[0].tolist()
        new = ids[inputs["input_ids"].shape[1] :]
        end = next((place + 1 for place, token in enumerate(new) if token in marks), len(new))
        assert found[row].output_tokens == end
        assert found[row].output == tokenizer.decode(new[:end], skip_special_tokens=True)
        stopped += end < len(new)
    assert stopped


def test_a_stop_sequence_that_begins_in_the_prompt_does_not_stop(llama: Path) -> None:
    """All of it must be generated."""
    texts = some(25)
    plain = answered(llama, texts)
    row = next(row for row, answer in plain.items() if len(answer.output) > 4)
    stop = texts[row][-1] + plain[row].output[:2]
    assert answered(llama, texts, stop=(stop,))[row] == plain[row]


@pytest.mark.parametrize(
    ("own", "pauses"),
    [
        ({"repetition_penalty": 1.2, "typical_p": 1.0, "no_repeat_ngram_size": 0}, True),
        ({"min_new_tokens": 3}, False),
        ({"no_repeat_ngram_size": 2}, False),
        ({"forced_eos_token_id": 2}, False),
        ({"begin_suppress_tokens": [9]}, False),
    ],
)
def test_a_models_own_settings_hold_for_each_row_from_its_prompt_on(
    own: dict[str, Any],
    pauses: bool,  # noqa: FBT001
    tmp_path: Path,
    steps: list[DecodingStep],
) -> None:
    folder, texts = tiny_generator(tmp_path / "model"), some(25)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    found = answered(folder, texts)
    assert any(len(step.new_tokens) > 1 for step in steps) is pauses
    assert found == {row: answered(folder, {row: text})[row] for row, text in texts.items()}


def test_a_models_own_stop_sequences_end_the_output(tmp_path: Path) -> None:
    folder, texts = tiny_generator(tmp_path / "model"), some(25)
    plain = answered(folder, texts)
    stop = next(answer.output[3] for answer in plain.values() if len(answer.output) > 6)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"stop_strings": [stop]}))
    found = answered(folder, texts)
    assert found == answered(folder, texts, stop=(stop,))
    assert found != plain


LLAMA_LIKE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": MAX_TOKENS,
}
OTHERS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "without a cache": (
        OpenAIGPTLMHeadModel,
        OpenAIGPTConfig,
        {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": MAX_TOKENS},
    ),
    "with positions by the cache": (
        BartForCausalLM,
        BartConfig,
        {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 64}
        | {"max_position_embeddings": MAX_TOKENS, "init_std": 0.3, "forced_eos_token_id": None},
    ),
    "that drops its cache": (
        Phi3ForCausalLM,
        Phi3Config,
        LLAMA_LIKE | {"original_max_position_embeddings": 24},
    ),
    "with positions by the mask": (
        BloomForCausalLM,
        BloomConfig,
        {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    ),
    "with a window": (MistralForCausalLM, MistralConfig, LLAMA_LIKE | {"sliding_window": 16}),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_model_generates_for_each_row_as_alone(kind: str, tmp_path: Path) -> None:
    folder, texts = tiny_generator(tmp_path / "model"), some(25)
    build, config, shape = OTHERS[kind]
    tokens = {"vocab_size": 263, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(config(**{"initializer_range": 0.3, **tokens, **shape}))
    model.save_pretrained(folder)
    found = answered(folder, texts)
    assert found == {row: answered(folder, {row: text})[row] for row, text in texts.items()}
    assert len({answer.output for answer in found.values()}) > 5


@pytest.mark.parametrize("moment", ["keep", "join"])
def test_memory_that_runs_out_between_two_steps_costs_no_row(
    llama: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = answered(llama, some(30))
    times = iter(range(10_000))
    real = getattr(DecodingBatch, moment)

    def scarce(batch: DecodingBatch, argument: Any) -> None:
        if next(times) == 1:
            raise torch.OutOfMemoryError("out of memory")
        real(batch, argument)

    monkeypatch.setattr(DecodingBatch, moment, scarce)
    assert answered(llama, some(30)) == expected
    assert next(times) > 2


@pytest.mark.parametrize("stop", ["\ufffd", "a\ufffd"])
def test_bytes_of_no_text_are_no_stop_sequence(stop: str) -> None:
    with pytest.raises(ValidationError, match=r"U\+FFFD"):
        GenerateOptions(stop=(stop,))
