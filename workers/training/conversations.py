"""Conversations rendered by the model's chat template, with the spans of the answers to learn.

Promise P13: the text and tokens before an answer are exactly the prompt that a bulk job gives to
the model, because ``generate`` renders these turns in the same way.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

from jobs.corpora.batches import clipped
from jobs.corpora.message_lists import CONVERSATION
from jobs.errors import ControlFlow, ModelFailure
from jobs.row_codes import RowCode
from workers.inference.batching.forward import RowError
from workers.inference.tasks.generator import conversation, with_system
from workers.training.tokenized_dataset import Row

Message = dict[str, Any]
Span = tuple[int, int]
Tokenized = tuple[list[int], list[Span]]
"""Token ids, and the spans that are targets."""

GENERATION_BLOCK = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""How a template marks the assistant's text, as transformers reads it."""

SAMPLE_CONVERSATION = [
    {"role": "user", "content": "Ping?"},
    {"role": "assistant", "content": "Pong."},
]


@dataclass(frozen=True)
class RenderedConversation:
    """The text of a conversation, and the spans of the answers to learn."""

    text: str
    spans: tuple[Span, ...]  # of characters

    def prefixes(self) -> Iterator[str]:
        """The whole text, and its prefixes up to each edge of a span."""
        yield self.text
        for span in self.spans:
            yield from (self.text[:edge] for edge in span)


class TemplateMismatch(ControlFlow, ValueError):
    """The template cannot render the conversation, or its answers cannot be located."""


class ChatEncoder:
    """Encodes rows as conversations with the chat template of a tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, system: str | None) -> None:
        self._tokenizer: Any = tokenizer
        self._system = system
        self._end_of_text = int(tokenizer.eos_token_id or 0)
        try:
            probe = self._rendered(SAMPLE_CONVERSATION, [1])
        except TemplateMismatch as mismatch:
            raise ModelFailure(
                f"the chat template of the model cannot be trained on: {mismatch}; "
                "pass --no-chat to train on plain texts",
                code="chat_template_unsupported",
            ) from mismatch
        self.end_id = self._end_of_answer(probe)

    def row(self, text: str, target: str, *, window: int) -> Row | RowError:
        """Token ids of a row's conversation, and the start and end of each target span."""
        try:
            rendered = self.rendered(text, target)
        except ValueError as error:
            message = f"the conversation does not fit the model's template: {error}"
            return RowError(RowCode.BAD_CHAT, clipped(message))
        ids, spans = self._tokenized(rendered)
        if self.end_id is None and spans[-1][1] == len(ids):  # the template ends no answer
            ids, spans[-1] = [*ids, self._end_of_text], (spans[-1][0], len(ids) + 1)
        return truncated(ids, spans, window=window)

    def rendered(self, text: str, target: str) -> RenderedConversation:
        """The rendered text of messages, or of a prompt with its answer.

        Raises ``ValueError``.
        """
        messages = conversation(text)
        if target != CONVERSATION:
            messages = [*messages, {"role": "assistant", "content": target}]
        messages = with_system(messages, self._system)
        answers = _answers(messages) if target == CONVERSATION else [len(messages) - 1]
        return self._rendered([_without_weight(message) for message in messages], answers)

    def _rendered(
        self, messages: Sequence[Message], answers: Sequence[int]
    ) -> RenderedConversation:
        if GENERATION_BLOCK.search(self._template):
            return self._by_marks(messages, answers)
        whole = self._text(messages)
        spans = tuple(self._span(messages, index, whole) for index in answers)
        return RenderedConversation(whole, spans)

    def _by_marks(
        self, messages: Sequence[Message], answers: Sequence[int]
    ) -> RenderedConversation:
        """The template marks the answers, in the order of the assistant's turns."""
        whole, marks = self._marked(messages)
        turns = [index for index, each in enumerate(messages) if each["role"] == "assistant"]
        if len(marks) != len(turns):
            raise TemplateMismatch(
                f"it marks {len(marks)} of {len(turns)} answers ({{% generation %}})"
            )
        spans = dict(zip(turns, marks, strict=True))
        return RenderedConversation(whole, tuple(spans[index] for index in answers))

    def _span(self, messages: Sequence[Message], index: int, whole: str) -> Span:
        """From the end of the generation prompt to the start of the next turn."""
        before = self._text(messages[:index], generation_prompt=True)
        after = self._text(messages[: index + 1])
        if not whole.startswith(after) or not after.startswith(before) or after == before:
            raise TemplateMismatch(
                "it does not render the turns before an answer alike with and without the answer, "
                "and does not mark answers ({% generation %})"
            )
        return len(before), len(after)

    def _text(self, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
        with _template_errors():
            text: str = self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=generation_prompt
            )
            return text

    def _marked(self, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        with _template_errors():
            render: Any = chat_template_utils.render_jinja_template
            texts, marks = render(
                conversations=[list(messages)],
                chat_template=self._template,
                return_assistant_tokens_mask=True,
                **self._tokenizer.special_tokens_map,
            )
            return texts[0], marks[0]

    @property
    def _template(self) -> str:
        template: str = self._tokenizer.get_chat_template()
        return template

    def _tokenized(self, rendered: RenderedConversation) -> Tokenized:
        tokenized = by_prefixes([self._ids(text) for text in rendered.prefixes()])
        return tokenized or joined([self._ids(text) for text in cut(rendered)])

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def _end_of_answer(self, probe: RenderedConversation) -> int | None:
        """The special token that ends an answer; ``None``: the template has none."""
        answer = str(SAMPLE_CONVERSATION[1]["content"])
        rest = probe.text[probe.text.rfind(answer) + len(answer) :]
        special = set(self._tokenizer.all_special_ids) | set(self._tokenizer.added_tokens_decoder)
        return next((token for token in self._ids(rest) if token in special), None)


@contextmanager
def _template_errors() -> Iterator[None]:
    """Any exception of a template is a mismatch of template and conversation."""
    try:
        yield
    except (ValueError, TypeError, TemplateError, KeyError) as error:
        raise TemplateMismatch(str(error)) from error


def by_prefixes(encoded: Sequence[list[int]]) -> Tokenized | None:
    """Token ids and target spans, from the ids of ``RenderedConversation.prefixes``.

    ``None`` if a token crosses the edge of a span.
    """
    whole, *prefixes = encoded
    if any(whole[: len(ids)] != ids for ids in prefixes):
        return None
    edges = iter([len(ids) for ids in prefixes])
    return whole, list(zip(edges, edges, strict=True))


def cut(rendered: RenderedConversation) -> list[str]:
    """The text, cut at the edges of its spans."""
    edges = [0, *(edge for span in rendered.spans for edge in span), len(rendered.text)]
    return [rendered.text[start:end] for start, end in itertools.pairwise(edges)]


def joined(pieces: Sequence[list[int]]) -> Tokenized:
    """Token ids and target spans of a text whose pieces (see ``cut``) were tokenized apart."""
    edges = [0]
    for ids in pieces:
        edges.append(edges[-1] + len(ids))
    spans = [(edges[index], edges[index + 1]) for index in range(1, len(pieces), 2)]
    return [token for ids in pieces for token in ids], spans


def truncated(ids: list[int], spans: Sequence[Span], *, window: int) -> Row:
    """The row truncated to the window: its end, but with the start of the last answer."""
    first = max(min(len(ids) - window, spans[-1][0] - 1), 0)
    kept = ids[first : first + window]
    return kept, [min(max(edge - first, 0), len(kept)) for span in spans for edge in span]


def _answers(messages: Sequence[Message]) -> list[int]:
    """Indices of the assistant's messages, without those of weight 0."""
    answers = [
        index
        for index, message in enumerate(messages)
        if message["role"] == "assistant" and message.get("weight", 1)
    ]
    if not answers:
        raise TemplateMismatch("there is no message of the assistant to learn")
    return answers


def _without_weight(message: Message) -> Message:
    return {name: value for name, value in message.items() if name != "weight"}


def stop_at(model: Any, end_id: int | None) -> None:
    """Add a token to those that end the model's generated texts."""
    known = model.generation_config.eos_token_id
    end_ids = [] if known is None else [known] if isinstance(known, int) else list(known)
    if end_id is not None and end_id not in end_ids:
        model.generation_config.eos_token_id = [*end_ids, end_id]
