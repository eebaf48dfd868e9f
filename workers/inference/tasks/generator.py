"""Generation: a causal language model continues each row's prompt, or answers its chat."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from jobs.corpora import values
from jobs.corpora.batches import clipped
from jobs.kinds import GenerateOptions
from jobs.models.inspection import ModelFacts
from jobs.progress import Beat
from jobs.row_codes import RowCode
from jobs.settings import Settings
from workers.inference import model_loader
from workers.inference.batching.forward import RowError
from workers.inference.batching.tokenization import RowText
from workers.inference.decoding import text_generation
from workers.inference.decoding.decoding_batch import Prompt
from workers.inference.decoding.sampling import Sampling
from workers.inference.decoding.text_generation import GeneratedText, TextGenerator
from workers.inference.probes import preflight


class PromptBuilder:
    """Builds prompts from rows: plain texts, or chats in the model's own template."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        options: GenerateOptions,
        chats: bool,
        max_total_tokens: int | None,
    ) -> None:
        self._tokenizer: Any = tokenizer
        self._chats = chats if options.chat is None else options.chat
        self._options = options
        # of prompt and output together; None: no limit is known
        self._max_total_tokens = max_total_tokens

    def prompt(self, row: int, text: RowText) -> Prompt | RowError:
        """The row's prompt, or why it has none."""
        if isinstance(text, str):
            return self._prompt(row, text, options=self._options)
        try:
            options = self._options.of_row(text.second)
        except ValidationError as error:
            message = f"the row's settings: {_first_problem(error)}"
            return RowError(RowCode.BAD_SETTINGS, clipped(message))
        return self._prompt(row, text.text, options=options)

    def _prompt(self, row: int, text: str, *, options: GenerateOptions) -> Prompt | RowError:
        new_tokens = options.max_new_tokens
        ids = self._chat(text) if self._chats else self._tokenizer(text)["input_ids"]
        if isinstance(ids, RowError):
            return ids
        if not ids:
            return RowError(RowCode.NO_TOKENS, "the tokenizer makes no token of this text")
        if self._max_total_tokens is not None and len(ids) + new_tokens > self._max_total_tokens:
            total = self._max_total_tokens
            message = (
                f"the prompt has {len(ids)} tokens; the context window of {total} leaves "
                f"{max(0, total - new_tokens)} after max_new_tokens {new_tokens}"
            )
            return RowError(RowCode.TOO_MANY_TOKENS, message)
        return Prompt(row, list(ids), max_new_tokens=new_tokens, sampling=sampling(options))

    def _chat(self, text: str) -> list[int] | RowError:
        try:
            messages = conversation(text)
            messages = with_system(messages, self._options.system)
            rendered = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except (ValueError, TypeError, TemplateError) as error:  # a template raises any of these
            message = f"the chat does not fit the model's template: {error}"
            return RowError(RowCode.BAD_CHAT, message)
        ids: list[int] = self._tokenizer(rendered, add_special_tokens=False)["input_ids"]
        return ids


def _first_problem(error: ValidationError) -> str:
    """The first problem in words, with the name of its field."""
    problem = error.errors()[0]
    field = ".".join(map(str, problem["loc"]))
    message = problem["msg"].removeprefix("Value error, ")
    return f"{field}: {message}" if field else message


def conversation(text: str) -> list[dict[str, Any]]:
    """A row's messages: a JSON array of ``{"role", "content"}``; other text is a user message.

    The content of each is a string, or parts of text, which are joined. Raises ``ValueError`` for
    an array with objects that are not messages.
    """
    messages = _array(text) if text.lstrip().startswith("[") else None
    if not messages or not any(isinstance(message, dict) for message in messages):
        return [{"role": "user", "content": text}]
    return [_message(message) for message in messages]


def _message(message: Any) -> dict[str, Any]:
    is_object = isinstance(message, dict) and "content" in message
    if not is_object or not isinstance(message.get("role"), str):
        raise ValueError('each message must be {"role": "...", "content": "..."}')
    return {**message, "content": values.message_text(message["content"])}


def with_system(messages: list[dict[str, Any]], system: str | None) -> list[dict[str, Any]]:
    """The messages with a system message first, unless they begin with one or it is ``None``."""
    if system is None or messages[0]["role"] == "system":
        return messages
    return [{"role": "system", "content": system}, *messages]


def _array(text: str) -> list[Any] | None:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, list) else None


class Generator:
    """A loaded causal language model that answers rows. For one thread at a time."""

    def __init__(
        self, generator: TextGenerator, *, prompts: PromptBuilder, sampled: bool, digest: str
    ) -> None:
        self.digest = digest
        self.batch_policy = generator.batch_policy
        self._generator = generator
        self._prompts = prompts
        self._sampled = sampled

    def answer(
        self, texts: Mapping[int, RowText], *, beat: Beat
    ) -> dict[int, GeneratedText | RowError]:
        """A text for every row.

        Equal prompts have one output, unless they are sampled or have settings of their own.
        """
        build = self._prompts.prompt
        plain = {row: text for row, text in texts.items() if isinstance(text, str)}
        if self._sampled or len(plain) < len(texts):
            return self._generator.answer(texts, build_prompt=build, beat=beat)
        return self._generator.answer_distinct(plain, build_prompt=build, beat=beat)


def sampling(options: GenerateOptions) -> Sampling | None:
    """The sampling settings; ``None`` at temperature 0."""
    if not options.temperature:
        return None
    return Sampling(
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        seed=options.seed,
    )


def load(
    folder: Path, options: GenerateOptions, *, facts: ModelFacts, settings: Settings
) -> Generator:
    """The folder's causal language model on this process's device. Raises ``ModelFailure``."""
    auto: Any = AutoModelForCausalLM
    tokenizer = model_loader.tokenizer(folder)
    model = model_loader.model(folder, auto=auto, options=options)
    preflight.check_vocabulary(model, tokenizer)
    config = text_generation.generation_config(
        model,
        tokenizer,
        options=options,
        num_beams=1,
        repetition_penalty=options.repetition_penalty,
    )
    generator = TextGenerator(
        model,
        tokenizer=tokenizer,
        config=config,
        options=options,
        settings=settings,
        digest=facts.digest,
        max_total_tokens=facts.max_tokens,
    )
    prompts = PromptBuilder(
        tokenizer, options=options, chats=facts.has_chat_template, max_total_tokens=facts.max_tokens
    )
    max_prompt_tokens = (
        None if facts.max_tokens is None else facts.max_tokens - options.max_new_tokens
    )
    generator.check(build_prompt=prompts.prompt, max_prompt_tokens=max_prompt_tokens)
    return Generator(
        generator,
        prompts=prompts,
        sampled=options.temperature > 0,
        digest=facts.digest,
    )
