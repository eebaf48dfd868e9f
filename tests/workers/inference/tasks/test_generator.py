"""Causal language models of real architectures, against transformers' own ``generate``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs.errors import LeaseLost, ModelFailure
from jobs.kinds import GenerateOptions
from jobs.row_codes import RowCode
from jobs.settings import Settings
from tests.support.result_schemas import WRITTEN_SCHEMA
from tests.support.tiny_writers import MAX_TOKENS, tiny_generator
from tests.workers.inference.builders import no_beat, some_texts
from workers.inference import engine
from workers.inference.batching.forward import RowError
from workers.inference.batching.tokenization import PairedText, RowText
from workers.inference.decoding.text_generation import GeneratedText
from workers.inference.engine import Engine
from workers.inference.tasks import generator

STEPS = 12
ONE_THREAD = Settings(worker_threads=1)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_generator(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="module")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_generator(tmp_path_factory.mktemp("models") / "chatty", chat=True)


def loaded(folder: Path, *, settings: Settings = ONE_THREAD, **options: Any) -> Engine:
    return engine.load(
        folder, GenerateOptions(**{"max_new_tokens": STEPS, **options}), settings=settings
    )


def generated(model: Engine, texts: Mapping[int, RowText]) -> dict[int, GeneratedText]:
    """The answers, none of which may be an error."""
    answers = model.answer(texts, beat=no_beat)
    assert not [answer for answer in answers.values() if isinstance(answer, RowError)]
    return {row: answer for row, answer in answers.items() if isinstance(answer, GeneratedText)}


def outputs(folder: Path, texts: Mapping[int, str], **options: Any) -> dict[int, str]:
    answers = generated(loaded(folder, **options), texts)
    return {row: answer.output for row, answer in answers.items()}


def error(model: Engine, text: str) -> RowError:
    answer = model.answer({0: text}, beat=no_beat)[0]
    assert isinstance(answer, RowError)
    return answer


def plain(folder: Path, prompt: str, *, special: bool = True, **options: Any) -> tuple[str, int]:
    """The text of plain transformers, and its number of tokens."""
    tokenizers: Any = AutoTokenizer
    models: Any = AutoModelForCausalLM
    tokenizer, model = tokenizers.from_pretrained(folder), models.from_pretrained(folder).eval()
    inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=special)
    with torch.inference_mode():
        ids = model.generate(**inputs, max_new_tokens=STEPS, do_sample=False, **options)
    new = ids[0, inputs["input_ids"].shape[1] :]
    return tokenizer.decode(new, skip_special_tokens=True), len(new)


def numbered(count: int, *, longest: int = 8, seed: int = 0) -> dict[int, str]:
    return dict(enumerate(some_texts(count, longest=longest, seed=seed)))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_texts_are_those_of_plain_transformers(family: str, tmp_path: Path) -> None:
    folder = tiny_generator(tmp_path / "model", family=family)
    texts = numbered(25)
    for row, answer in generated(loaded(folder), texts).items():
        text, tokens = plain(folder, texts[row])
        assert (answer.output, answer.output_tokens) == (text, tokens)
        ended = tokens < STEPS
        assert answer.finish_reason == "stop" if ended else answer.finish_reason == "length"


def test_some_rows_end_and_others_are_cut(llama: Path) -> None:
    reasons = {each.finish_reason for each in generated(loaded(llama), numbered(60)).values()}
    assert reasons == {"stop", "length"}


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@given(data=st.data())
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_depends_on_how_the_rows_are_cut(
    llama: Path, temperature: float, data: st.DataObject
) -> None:
    texts = numbered(16)
    options: dict[str, Any] = {"temperature": temperature, "seed": 3}
    alone = {row: outputs(llama, {row: text}, **options)[row] for row, text in texts.items()}
    budget = data.draw(st.integers(min_value=1, max_value=200), label="budget")
    cut = data.draw(st.integers(min_value=0, max_value=len(texts)), label="cut")
    found = loaded(llama, settings=Settings(worker_threads=1, batch_tokens=budget), **options)
    rows = list(texts.items())
    answers = generated(found, dict(rows[:cut])) | generated(found, dict(rows[cut:]))
    assert {row: answer.output for row, answer in answers.items()} == alone


def test_equal_prompts_are_answered_alike_and_sampled_each_on_its_own(llama: Path) -> None:
    texts = dict.fromkeys(range(6), "the team won")
    assert len(set(outputs(llama, texts).values())) == 1
    assert len(set(outputs(llama, texts, temperature=1.0).values())) > 1


def test_the_seed_decides_what_is_sampled(llama: Path) -> None:
    texts = numbered(6)
    first = outputs(llama, texts, temperature=1.0, seed=1)
    assert first == outputs(llama, texts, temperature=1.0, seed=1)
    assert first != outputs(llama, texts, temperature=1.0, seed=2)


def test_a_stop_sequence_ends_the_output_before_itself(llama: Path) -> None:
    texts = numbered(20)
    whole = outputs(llama, texts)
    row = next(row for row, text in whole.items() if len(text) > 6)
    stop = whole[row][4:6]
    answer = generated(loaded(llama, stop=(stop,)), {row: texts[row]})[row]
    assert answer.output == whole[row].split(stop)[0]
    assert answer.finish_reason == "stop"
    assert answer.output_tokens < STEPS


@pytest.mark.parametrize("padding", ["a token of its own", "the end token"])
def test_an_output_that_was_stopped_is_counted_without_the_padding_of_its_batch(
    padding: str, tmp_path: Path
) -> None:
    folder = tiny_generator(tmp_path / "model")
    if padding == "the end token":
        path = folder / "generation_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"pad_token_id": 2}))
    texts = numbered(20)
    third = {text[2] for text in outputs(folder, texts).values() if len(text) > 6}
    found = loaded(folder, stop=tuple(sorted(third - {"\ufffd"}))[-3:])
    together = generated(found, texts)
    assert together == {row: generated(found, {row: text})[row] for row, text in texts.items()}
    assert len({each.output_tokens for each in together.values()}) > 2


def test_a_repetition_penalty_is_that_of_transformers(llama: Path) -> None:
    texts = numbered(10)
    found = outputs(llama, texts, repetition_penalty=1.5)
    assert found == {
        row: plain(llama, text, repetition_penalty=1.5)[0] for row, text in texts.items()
    }


def test_the_models_own_settings_of_sampling_and_of_results_are_left_out(tmp_path: Path) -> None:
    folder = tiny_generator(tmp_path / "model")
    texts = numbered(10)
    before = outputs(folder, texts)
    path = folder / "generation_config.json"
    own = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 4, "max_length": 20}
    odd = {"num_return_sequences": 3, "return_dict_in_generate": True, "num_beams": 3}
    path.write_text(json.dumps(json.loads(path.read_text()) | own | odd))
    assert outputs(folder, texts) == before


def test_a_prompt_that_leaves_no_room_is_an_error_row(llama: Path) -> None:
    found = error(loaded(llama), "x" * MAX_TOKENS)
    assert found.code is RowCode.TOO_MANY_TOKENS
    assert f"has {MAX_TOKENS + 1} tokens" in found.message
    assert f"leaves {MAX_TOKENS - STEPS} after max_new_tokens {STEPS}" in found.message


def test_more_new_tokens_than_the_model_holds_are_refused_at_once(llama: Path) -> None:
    with pytest.raises(ModelFailure) as caught:
        loaded(llama, max_new_tokens=MAX_TOKENS)
    assert caught.value.code == "model_too_short"


def test_numbers_that_are_not_finite_are_an_error_of_the_row(tmp_path: Path) -> None:
    folder = tiny_generator(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][:] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert error(loaded(folder), "the team").code is RowCode.NOT_FINITE


def test_what_the_beat_raises_ends_the_work_between_two_tokens(llama: Path) -> None:
    beats = 0

    def beat() -> None:
        nonlocal beats
        beats += 1
        if beats == 3:
            raise LeaseLost("taken over")

    with pytest.raises(LeaseLost):
        loaded(llama).answer(numbered(4), beat=beat)
    assert beats == 3


def test_answers_fit_the_columns_of_a_part(llama: Path) -> None:
    (answer,) = generated(loaded(llama), {0: "the team"}).values()
    assert set(answer.columns()) < set(WRITTEN_SCHEMA.names)


PART = {"type": "text"}
NO_CONTENTS: list[Any] = [
    None,
    42,
    True,
    {"text": "x"},
    [],
    ["x"],
    [PART],
    [PART | {"text": 1}],
    [PART | {"text": "x"}, {"type": "image"}],
]


def test_a_text_of_brackets_within_brackets_is_no_chat() -> None:
    text = "[" * 100_000
    assert generator.conversation(text) == [{"role": "user", "content": text}]


def chat_prompt(*messages: tuple[str, str]) -> str:
    return "".join(f"<|{role}|>{text}</s>" for role, text in messages) + "<|assistant|>"


@pytest.mark.parametrize(
    ("text", "options", "prompt"),
    [
        ("hello", {}, chat_prompt(("user", "hello"))),
        ("hello", {"system": "be brief"}, chat_prompt(("system", "be brief"), ("user", "hello"))),
        ("[1, 2]", {}, chat_prompt(("user", "[1, 2]"))),
        (
            json.dumps(
                [{"role": "user", "content": [PART | {"text": "a "}, PART | {"text": "b"}]}]
            ),
            {},
            chat_prompt(("user", "a b")),
        ),
        ("[not JSON", {}, chat_prompt(("user", "[not JSON"))),
        (
            json.dumps([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]),
            {"system": "is there already"},
            chat_prompt(("system", "a"), ("user", "b")),
        ),
    ],
)
def test_a_chat_is_put_into_the_models_template(
    chatty: Path, text: str, options: dict[str, Any], prompt: str
) -> None:
    assert outputs(chatty, {0: text}, **options)[0] == plain(chatty, prompt, special=False)[0]


def test_a_model_with_a_template_can_be_given_plain_prompts(chatty: Path) -> None:
    assert outputs(chatty, {0: "hello"}, chat=False)[0] == plain(chatty, "hello")[0]


@pytest.mark.parametrize(
    "text",
    [
        '[{"role": "user"}]',
        '[{"content": "x"}]',
        '[{"role": "tool", "content": "x"}]',
        '[{"role": "user", "content": "x"}, 1]',
        *(json.dumps([{"role": "user", "content": content}]) for content in NO_CONTENTS),
    ],
)
def test_a_chat_that_does_not_fit_is_an_error_row(chatty: Path, text: str) -> None:
    assert error(loaded(chatty), text).code is RowCode.BAD_CHAT


SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 0.8},
    {"temperature": 1.2, "top_k": 5, "seed": 7},
    {"temperature": 0.8, "top_p": 0.9, "max_new_tokens": 3},
    {"max_new_tokens": 20},
    {"temperature": 0, "max_new_tokens": 1},
    {"temperature": None},
)


@pytest.mark.parametrize("job", [{}, {"temperature": 0.6, "top_p": 0.8, "seed": 5}])
def test_a_row_with_settings_has_the_output_of_a_job_with_them(
    llama: Path, job: dict[str, Any]
) -> None:
    texts = numbered(2 * len(SETTINGS))
    own_settings = {row: SETTINGS[row % len(SETTINGS)] for row in texts}
    rows = {row: PairedText(text, json.dumps(own_settings[row])) for row, text in texts.items()}
    found = generated(loaded(llama, **job), rows)
    for row, text in texts.items():
        own = {name: value for name, value in own_settings[row].items() if value is not None}
        rest = {} if own.get("temperature") == 0 else job
        assert found[row] == generated(loaded(llama, **{**rest, **own}), {row: text})[row]
    assert len({answer.output_tokens for answer in found.values()}) > 2


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ("{", "Invalid JSON"),
        ("[1]", "object"),
        ('{"temperatur": 1}', "temperatur: Extra inputs"),
        ('{"temperature": 11}', "temperature: Input should be less than or equal to 10"),
        ('{"top_k": 3}', "top_k and top_p are for sampling: set a temperature above 0"),
        ('{"max_new_tokens": 0}', "max_new_tokens: "),
    ],
)
def test_settings_that_are_wrong_are_their_rows_error(
    llama: Path, settings_: str, message: str
) -> None:
    rows = {0: PairedText("the team", settings_), 1: PairedText("the team", "{}")}
    bad, good = loaded(llama).answer(rows, beat=no_beat).values()
    assert isinstance(bad, RowError)
    assert bad.code is RowCode.BAD_SETTINGS
    assert bad.message.startswith("the row's settings: ")
    assert message in bad.message
    assert isinstance(good, GeneratedText)


def test_a_rows_own_length_is_held_against_what_the_model_can_hold(llama: Path) -> None:
    row = PairedText("the team", json.dumps({"max_new_tokens": MAX_TOKENS}))
    answer = loaded(llama).answer({0: row}, beat=no_beat)[0]
    assert isinstance(answer, RowError)
    assert answer.code is RowCode.TOO_MANY_TOKENS
    assert f"after max_new_tokens {MAX_TOKENS}" in answer.message


def test_long_prompts_and_long_outputs_do_not_add_up_over_a_batch(tmp_path: Path) -> None:
    """The model has positions for each row alone, and not for the longest of both."""
    folder = tiny_generator(tmp_path / "gpt2", family="gpt2")
    long, short = "the team " * (MAX_TOKENS // 12), "the team"
    most = MAX_TOKENS - 20
    rows = {
        0: PairedText(long, '{"max_new_tokens": 4}'),
        1: PairedText(short, f'{{"max_new_tokens": {most}}}'),
    }
    found = generated(loaded(folder), rows)
    assert found[0].output_tokens <= 4
    for row, item in rows.items():
        assert found[row] == generated(loaded(folder), {row: item})[row]
