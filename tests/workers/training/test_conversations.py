"""Conversations in templates of well-known models: prompts and targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.corpora.message_lists import CONVERSATION
from jobs.errors import ModelFailure
from jobs.row_codes import RowCode
from tests.support.tiny_writers import CHAT, tiny_generator
from tests.workers.training.test_chats import messages
from workers.inference import model_loader
from workers.inference.batching.forward import RowError
from workers.training.conversations import ChatEncoder, stop_at

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}[{{ m['role'] }}]{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}</s>{% endgeneration %}{% else %}{{ m['content'] }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
THINKING = (  # as of reasoning models: only the last answer has thoughts
    "{% for m in messages %}<{{ m['role'] }}>{% if m['role'] == 'assistant' and loop.last %}"
    "<think></think>{% endif %}{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
COUNTING = "{{ messages | length }}{% for m in messages %} {{ m['content'] }}{% endfor %}"
UNENDED = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
TALK = messages(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_generator(tmp_path_factory.mktemp("models") / "chatty", chat=True)


def tokenizer(base: Path, template: str) -> Any:
    loaded: Any = model_loader.tokenizer(base)
    loaded.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    loaded.chat_template = template
    return loaded


def target_texts(
    base: Path, template: str, row: tuple[str, str | None], *, window: int = 200
) -> Any:
    """The target texts of a row, one per span, or its error."""
    chat_tokenizer = tokenizer(base, template)
    encoded = ChatEncoder(chat_tokenizer, system=None).row(row[0], row[1] or "", window=window)
    if isinstance(encoded, RowError):
        return encoded
    ids, edges = encoded
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [chat_tokenizer.decode(ids[begin:end]) for begin, end in pairs]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (CHAT, ["b</s>", "d</s>"]),
        (CHATML, ["b<|im_end|>\n", "d<|im_end|>\n"]),
        (MARKED, ["b</s>", "d</s>"]),
        (UNENDED, ["b\n", "d\n</s>"]),
    ],
)
def test_every_answer_is_a_target_as_the_template_renders_it(
    base: Path, template: str, expected: list[str]
) -> None:
    assert target_texts(base, template, TALK) == expected


def test_an_answer_of_weight_0_is_input_but_no_target(base: Path) -> None:
    row = messages(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), _1=0)
    assert target_texts(base, CHATML, row) == ["d<|im_end|>\n"]
    nothing = messages(("user", "a"), ("assistant", "b"), _1=0)
    error = target_texts(base, CHATML, nothing)
    assert error.code is RowCode.BAD_CHAT
    assert "no message of the assistant" in error.message


def test_the_prompt_of_an_answer_is_that_of_a_bulk_job(base: Path) -> None:
    chat_tokenizer = tokenizer(base, CHATML)
    encoder = ChatEncoder(chat_tokenizer, system="S")
    # The first token of the answer might merge with the prompt's last one.
    encoded = encoder.row("a", "\nb", window=200)
    assert not isinstance(encoded, RowError)
    ids, (begin, _) = encoded
    prompt = [{"role": "system", "content": "S"}, {"role": "user", "content": "a"}]
    whole = chat_tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    assert ids[:begin] == chat_tokenizer(whole, add_special_tokens=False)["input_ids"]


def test_turns_that_render_otherwise_once_the_conversation_goes_on_are_an_error_row(
    base: Path,
) -> None:
    once = messages(("user", "a"), ("assistant", "b"))
    assert target_texts(base, THINKING, once) == ["<think></think>b</s>"]
    error = target_texts(base, THINKING, TALK)
    assert error.code is RowCode.BAD_CHAT
    assert "alike with and without the answer" in error.message


def test_a_row_that_the_template_refuses_is_an_error(base: Path) -> None:
    error = target_texts(base, CHAT, messages(("clown", "a"), ("assistant", "b")))
    assert error.code is RowCode.BAD_CHAT
    assert "must be system, user or assistant" in error.message


def test_a_template_in_which_answers_cannot_be_located_is_refused(base: Path) -> None:
    with pytest.raises(ModelFailure, match="no-chat") as failure:
        ChatEncoder(tokenizer(base, COUNTING), system=None)
    assert failure.value.code == "chat_template_unsupported"


def test_a_conversation_beyond_the_window_loses_its_start_but_not_that_of_its_last_answer(
    base: Path,
) -> None:
    long = messages(("user", "x" * 90), ("assistant", "b"), ("user", "c"), ("assistant", "d" * 5))
    assert target_texts(base, CHAT, long, window=40)[-1] == "ddddd</s>"
    endless = messages(("user", "a"), ("assistant", "d" * 90))
    assert target_texts(base, CHAT, endless, window=40) == ["d" * 39]


def test_the_token_that_ends_an_answer_ends_the_models_texts(base: Path) -> None:
    chat_tokenizer = tokenizer(base, CHATML)
    encoder = ChatEncoder(chat_tokenizer, system=None)
    assert encoder.end_id == chat_tokenizer.convert_tokens_to_ids("<|im_end|>")

    class Model:
        class generation_config:  # noqa: N801 - as in transformers
            eos_token_id: Any = 2

    stop_at(Model, encoder.end_id)
    assert Model.generation_config.eos_token_id == [2, encoder.end_id]
    assert ChatEncoder(tokenizer(base, UNENDED), system=None).end_id is None


def test_a_pair_is_a_conversation_whose_answer_is_the_target(base: Path) -> None:
    assert target_texts(base, CHAT, ("a", "b")) == ["b</s>"]
    before = messages(("user", "a"), ("assistant", "b"), ("user", "c"))[0]
    assert target_texts(base, CHAT, (before, "d")) == ["d</s>"]
    assert CONVERSATION.isspace()
