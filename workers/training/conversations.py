"""Conversations as a model learns them: rendered by its chat template, with what is to be written.

What a bulk job hands to the model for a chat is a beginning of what is learned here, text for text
and token for token: the turns before an answer are rendered as ``generate`` renders them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

from jobs.corpora.batches import clipped
from jobs.corpora.messages import CONVERSATION
from jobs.errors import ControlFlow, ModelFailure
from jobs.results.schemas import RowCode
from workers.inference.batching.forward import RowError
from workers.inference.tasks.generator import conversation, with_system
from workers.training.tokenized_dataset import Row

Message = dict[str, Any]
Span = tuple[int, int]
Tokenized = tuple[list[int], list[Span]]
"""Token ids, and spans of them that are to be written."""

MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""How a template marks what the assistant writes, as transformers reads it."""

PROBE = [{"role": "user", "content": "Ping?"}, {"role": "assistant", "content": "Pong."}]


@dataclass(frozen=True)
class Rendered:
    """A conversation as a text, and where in it the answers stand that are learned."""

    text: str
    spans: tuple[Span, ...]  # of characters

    def pieces(self) -> Iterator[str]:
        """The whole text, and its beginnings up to each end of a span."""
        yield self.text
        for span in self.spans:
            yield from (self.text[:place] for place in span)


class Unfit(ControlFlow, ValueError):
    """A conversation that the template cannot render, or not so that answers are found in it."""


class Conversations:
    """The chat template of a tokenizer, and how texts become conversations."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, system: str | None) -> None:
        self._tokenizer: Any = tokenizer
        self._system = system
        self._end_of_text = int(tokenizer.eos_token_id or 0)
        try:
            probe = self._rendered(PROBE, [1])
        except Unfit as unfit:
            raise ModelFailure(
                f"the chat template of the model cannot be trained on: {unfit}; pass --no-chat to "
                "train on plain texts",
                code="chat_template_unsupported",
            ) from unfit
        self.ending = self._ending(probe)

    def row(self, text: str, target: str, *, window: int) -> Row | RowError:
        """Token ids of a row's conversation, and the edges of what is to be written, in turn."""
        try:
            rendered = self.rendered(text, target)
        except ValueError as error:
            message = f"the conversation does not fit the model's template: {error}"
            return RowError(RowCode.BAD_CHAT, clipped(message))
        ids, spans = self._tokenized(rendered)
        if self.ending is None and spans[-1][1] == len(ids):  # nothing says where answers end
            ids, spans[-1] = [*ids, self._end_of_text], (spans[-1][0], len(ids) + 1)
        return fitting(ids, spans, window=window)

    def rendered(self, text: str, target: str) -> Rendered:
        """The text that the model reads of messages, or of a prompt with its answer.

        Raises ``ValueError``.
        """
        messages = conversation(text)
        if target != CONVERSATION:
            messages = [*messages, {"role": "assistant", "content": target}]
        messages = with_system(messages, self._system)
        learned = _learned(messages) if target == CONVERSATION else [len(messages) - 1]
        return self._rendered([_unweighted(message) for message in messages], learned)

    def _rendered(self, messages: Sequence[Message], learned: Sequence[int]) -> Rendered:
        if MARKED.search(self._template):
            return self._by_marks(messages, learned)
        whole = self._text(messages)
        return Rendered(whole, tuple(self._span(messages, place, whole) for place in learned))

    def _by_marks(self, messages: Sequence[Message], learned: Sequence[int]) -> Rendered:
        """The template itself says where answers stand, in the order of the assistant's turns."""
        whole, marks = self._marked(messages)
        turns = [place for place, each in enumerate(messages) if each["role"] == "assistant"]
        if len(marks) != len(turns):
            raise Unfit(f"it marks {len(marks)} of {len(turns)} answers ({{% generation %}})")
        spans = dict(zip(turns, marks, strict=True))
        return Rendered(whole, tuple(spans[place] for place in learned))

    def _span(self, messages: Sequence[Message], place: int, whole: str) -> Span:
        """From where a bulk job would let the model begin, to where the next turn begins."""
        before = self._text(messages[:place], asks=True)
        after = self._text(messages[: place + 1])
        if not whole.startswith(after) or not after.startswith(before) or after == before:
            raise Unfit(
                "it does not render the turns before an answer alike with and without the answer, "
                "and does not mark answers ({% generation %})"
            )
        return len(before), len(after)

    def _text(self, messages: Sequence[Message], *, asks: bool = False) -> str:
        with _blaming():
            found: str = self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=asks
            )
            return found

    def _marked(self, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        with _blaming():
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
        found: str = self._tokenizer.get_chat_template()
        return found

    def _tokenized(self, rendered: Rendered) -> Tokenized:
        found = in_tokens([self._ids(piece) for piece in rendered.pieces()])
        return found or joined([self._ids(piece) for piece in cut(rendered)])

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def _ending(self, probe: Rendered) -> int | None:
        """The special token that ends an answer; ``None``: the template writes none."""
        answer = str(PROBE[1]["content"])
        rest = probe.text[probe.text.rfind(answer) + len(answer) :]
        special = set(self._tokenizer.all_special_ids) | set(self._tokenizer.added_tokens_decoder)
        return next((token for token in self._ids(rest) if token in special), None)


class _blaming:  # noqa: N801 - used as a function
    """Whatever a template raises is the conversation's, or the template's own."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError | TypeError | TemplateError | KeyError):
            raise Unfit(str(error)) from error


def in_tokens(encoded: Sequence[list[int]]) -> Tokenized | None:
    """Token ids and spans of them, by the ids of ``pieces``.

    ``None`` where a token reaches over the edge of a span.
    """
    whole, *beginnings = encoded
    if any(whole[: len(ids)] != ids for ids in beginnings):
        return None
    places = iter([len(ids) for ids in beginnings])
    return whole, list(zip(places, places, strict=True))


def cut(rendered: Rendered) -> list[str]:
    """The text in pieces that begin and end with its spans."""
    places = [0, *(place for span in rendered.spans for place in span), len(rendered.text)]
    return [rendered.text[a:b] for a, b in itertools.pairwise(places)]


def joined(pieces: Sequence[list[int]]) -> Tokenized:
    """Token ids and spans of them, of a text whose pieces (see ``cut``) were tokenized apart."""
    edges = [0]
    for ids in pieces:
        edges.append(edges[-1] + len(ids))
    spans = [(edges[place], edges[place + 1]) for place in range(1, len(pieces), 2)]
    return [token for ids in pieces for token in ids], spans


def fitting(ids: list[int], spans: Sequence[Span], *, window: int) -> Row:
    """As much as the window holds: the end, but with the beginning of the last answer."""
    first = max(min(len(ids) - window, spans[-1][0] - 1), 0)
    kept = ids[first : first + window]
    return kept, [min(max(place - first, 0), len(kept)) for span in spans for place in span]


def _learned(messages: Sequence[Message]) -> list[int]:
    """Places of the assistant's messages, but for those of weight 0."""
    found = [
        place
        for place, message in enumerate(messages)
        if message["role"] == "assistant" and message.get("weight", 1)
    ]
    if not found:
        raise Unfit("there is no message of the assistant to learn")
    return found


def _unweighted(message: Message) -> Message:
    return {name: value for name, value in message.items() if name != "weight"}


def stop_at(model: Any, ending: int | None) -> None:
    """Let the model's texts end with this token, beside those that end them already."""
    known = model.generation_config.eos_token_id
    ends = [] if known is None else [known] if isinstance(known, int) else list(known)
    if ending is not None and ending not in ends:
        model.generation_config.eos_token_id = [*ends, ending]
