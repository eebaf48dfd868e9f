"""Models that generate text: prompts in, texts out, through the ``generate`` of transformers.

Prompts are batched, longest first, by a budget of the tokens that prompt and output may have
together. A row's text depends on no other row (see ``sampling``, promise P6); with several beams,
and in half precision, that holds but for rounding.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from jobs import progress
from jobs.kinds import DecodingOptions
from jobs.progress import Beat
from jobs.row_codes import RowCode
from jobs.settings import Settings
from workers import time_limits
from workers.inference import model_loader, row_isolation
from workers.inference.batching.batcher import BatchLayout
from workers.inference.batching.forward import NOT_FINITE, RowError
from workers.inference.batching.token_budget import BatchWork, TokenBudget
from workers.inference.batching.tokenization import RowText, count_unknown, unknown_token
from workers.inference.decoding import generation_mode
from workers.inference.decoding.continuous_batching import ContinuousBatcher
from workers.inference.decoding.decoder import Decoder
from workers.inference.decoding.decoding_batch import Prompt, SequenceState
from workers.inference.probes import decoding_probe, preflight
from workers.inference.special_tokens import SpecialTokens

KV_CACHE_BUDGETS = 8
"""A batch has this many times the tokens of a single forward pass: every step of generation reads
all weights, for one token of each row."""


@dataclass(frozen=True, slots=True)
class GeneratedText:
    """The model's output for a row."""

    output: str
    finish_reason: Literal["stop", "length"]
    tokens: int  # of the prompt
    output_tokens: int  # generated, the end-of-text token included
    truncated: bool  # the row's text was longer than the prompt
    unknown: int = 0  # unknown tokens in the prompt

    def columns(self) -> dict[str, Any]:
        """As in ``jobs.kinds.result_columns.WRITTEN``."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "unknown"}


BuildPrompt = Callable[[int, Any], Prompt | RowError]
"""Builds the prompt of a row from its number and its ``RowText``."""


class TextGenerator:
    """A loaded model that generates text. For one thread at a time.

    ``config`` is for transformers, ``options`` are the job's; with several beams the likeliest one
    is the output. ``max_total_tokens``: of prompt and output together; ``None``: no limit is known.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        tokenizer: PreTrainedTokenizerBase,
        config: GenerationConfig,
        options: DecodingOptions,
        settings: Settings,
        digest: str,
        max_total_tokens: int | None,
    ) -> None:
        own = model.generation_config
        self._decoder = Decoder(
            model,
            tokenizer=tokenizer,
            config=config,
            stop_sequences=options.stop or _texts(own.stop_strings),
            tokens=SpecialTokens.of(model, tokenizer),
        )
        # ``generate`` would take these from the model where the config has none.
        own.stop_strings = own.eos_token_id = None
        self.batch_policy = decoding_probe.apply_policy(
            self._decoder,
            model,
            tokenizer=tokenizer,
            settings=settings,
            digest=digest,
            max_total_tokens=max_total_tokens,
        )
        self._unknown = unknown_token(tokenizer)
        self._tokenizer = tokenizer
        self._repeats_doubts = model.dtype is torch.float32
        self._budget = TokenBudget(
            KV_CACHE_BUDGETS * model_loader.budget(settings, device=model.device)
        )
        self._tally = row_isolation.FaultTally("the tokenizer or its chat template")

    def check(self, *, build_prompt: BuildPrompt, max_prompt_tokens: int | None) -> None:
        """Raise ``ModelFailure`` if the model cannot generate with these options at all.

        ``max_prompt_tokens``: tokens that a prompt may have, where that is known.
        """
        preflight.check_generation(
            self._decoder,
            tokenizer=self._tokenizer,
            build_prompt=build_prompt,
            max_prompt_tokens=max_prompt_tokens,
        )

    def answer(
        self, texts: Mapping[int, RowText], *, build_prompt: BuildPrompt, beat: Beat
    ) -> dict[int, GeneratedText | RowError]:
        """A text or an error for every row."""
        begun = time.perf_counter()
        prompts = [self._prompt(build_prompt, row, text) for row, text in texts.items()]
        progress.tokenized(beat, seconds=time.perf_counter() - begun)
        generated = self.generate([each for each in prompts if isinstance(each, Prompt)], beat=beat)
        return {
            row: generated[row] if isinstance(prompt, Prompt) else prompt
            for row, prompt in zip(texts, prompts, strict=True)
        }

    def answer_distinct(
        self, texts: Mapping[int, str], *, build_prompt: BuildPrompt, beat: Beat
    ) -> dict[int, GeneratedText | RowError]:
        """The same with one generation for equal texts: all get the first one's output."""
        first_rows: dict[str, int] = {}
        for row, text in texts.items():
            first_rows.setdefault(text, row)
        answers = self.answer(
            {row: text for text, row in first_rows.items()}, build_prompt=build_prompt, beat=beat
        )
        return {row: answers[first_rows[text]] for row, text in texts.items()}

    def _prompt(self, build_prompt: BuildPrompt, row: int, text: RowText) -> Prompt | RowError:
        try:
            with time_limits.reading(), time_limits.interrupted():
                prompt = build_prompt(row, text)
        except BaseException as error:  # noqa: BLE001 - what is no row's fault is raised by check
            row_isolation.check(error)
            return RowError(RowCode.ROW_FAILED, self._tally.raised(row_isolation.reason(error)))
        self._tally.succeeded(1)
        return prompt

    def generate(
        self, prompts: Sequence[Prompt], *, beat: Beat
    ) -> dict[int, GeneratedText | RowError]:
        """An output for each prompt's row. ``beat`` is called after every token.

        In float32 a row with a token in doubt is generated again, alone.
        """
        outputs: dict[int, GeneratedText | RowError] = {}
        in_doubt: list[Prompt] = []

        def keep(sequence: SequenceState) -> None:
            progress.advance(beat, 1 / len(prompts))
            outputs[sequence.prompt.row] = self._output(sequence)
            if self._repeats_doubts and sequence.in_doubt and not sequence.not_finite:
                in_doubt.append(sequence.prompt)

        def refuse(prompt: Prompt) -> None:
            message = f"a prompt of {len(prompt.ids)} tokens does not fit into the device's memory"
            outputs[prompt.row] = RowError(RowCode.OUT_OF_MEMORY, message)

        def fail(prompt: Prompt, message: str) -> None:
            outputs[prompt.row] = RowError(RowCode.ROW_FAILED, message)

        marked = row_isolation.ends_work(beat)
        work = self._work(keep, refuse=refuse, fail=fail, beat=marked)
        self._generate_batched(prompts, work, keep=keep, beat=marked)
        again, in_doubt = in_doubt, []
        for prompt in again:
            self._budget.run_alone(prompt, work)
        return outputs

    def _generate_batched(
        self,
        prompts: Sequence[Prompt],
        work: BatchWork[Prompt],
        *,
        keep: Callable[[SequenceState], None],
        beat: Beat,
    ) -> None:
        if len(prompts) == 1 or not self._decoder.supports_continuous_batching:
            self._generate_in_fixed_batches(prompts, work)
            return
        batcher = ContinuousBatcher(prompts, decoder=self._decoder)
        while not self._run_continuously(batcher, work, keep=keep, beat=beat):
            pass

    def _generate_in_fixed_batches(
        self, prompts: Sequence[Prompt], work: BatchWork[Prompt]
    ) -> None:
        """In batches that are generated from beginning to end in one call."""
        for group in _groups(prompts, layout=self._decoder.layout):
            self._budget.run(group, work)

    def _run_continuously(
        self,
        batcher: ContinuousBatcher,
        work: BatchWork[Prompt],
        *,
        keep: Callable[[SequenceState], None],
        beat: Beat,
    ) -> bool:
        """Run continuous batching; ``False`` if prompts are still waiting.

        When memory runs out the running prompts are preempted, and run again under a smaller
        budget. When the model raises they are evicted, and generated apart from the others.
        """
        preempted: list[Prompt] = []

        def done(sequence: SequenceState) -> None:
            keep(sequence)
            self._budget.tally.succeeded(1)

        def run() -> None:
            batcher.run(lambda: self._budget.tokens, beat=beat, done=done)

        try:
            if self._budget.fits_in_memory(
                run, release=lambda: preempted.extend(batcher.preempt())
            ):
                return True
        except BaseException as error:
            row_isolation.check(error)
            suspects = batcher.evict()
            if not suspects:
                raise
        else:
            if len(preempted) == 1:
                work.refuse(batcher.drop_next())
            else:
                self._budget.halve([prompt.max_length for prompt in preempted])
            return False
        self._generate_in_fixed_batches(suspects, work)
        return False

    def _work(
        self,
        keep: Callable[[SequenceState], None],
        *,
        refuse: Callable[[Prompt], None],
        fail: Callable[[Prompt, str], None],
        beat: Beat,
    ) -> BatchWork[Prompt]:
        """Batches that are generated from beginning to end in one call."""

        def run(prompts: list[Prompt]) -> None:
            batch = self._decoder.batch(prompts)
            most = min(prompt.max_new_tokens for prompt in prompts)
            self._decoder.step(batch, most=most, beat=beat)
            for sequence in batch.sequences:
                keep(sequence)

        single = self._decoder.layout is BatchLayout.SINGLE
        return BatchWork(
            length=lambda prompt: prompt.max_length,
            run=run,
            refuse=refuse,
            fail=fail,
            beat=beat,
            finish=lambda: None,  # generated tokens are on the host already
            layout=BatchLayout.SINGLE if single else BatchLayout.PADDED,
        )

    def _output(self, sequence: SequenceState) -> GeneratedText | RowError:
        if sequence.not_finite:
            return NOT_FINITE
        return GeneratedText(
            output=self._decoder.text(sequence),
            finish_reason="stop" if sequence.stopped else "length",
            tokens=len(sequence.prompt.ids),
            output_tokens=len(sequence.new_tokens),
            truncated=sequence.prompt.truncated,
            unknown=count_unknown(self._unknown, sequence.prompt.ids),
        )


def _groups(prompts: Sequence[Prompt], *, layout: BatchLayout) -> Iterable[list[Prompt]]:
    """Prompts with the same ``max_new_tokens``. Others must not share a batch.

    A row that has ended is stepped on with its batch, and could run out of the model's positions.
    Where rows may not be padded, the prompts of a group are of one length too.
    """
    groups: dict[tuple[int, int], list[Prompt]] = {}
    for prompt in prompts:
        length = 0 if layout is BatchLayout.PADDED else len(prompt.ids)
        groups.setdefault((prompt.max_new_tokens, length), []).append(prompt)
    return groups.values()


def generation_config(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    options: DecodingOptions,
    **overrides: Any,
) -> GenerationConfig:
    """The model's own settings with overrides; ``None`` overrides nothing."""
    generation_mode.disable_speculation(model)
    config: Any = copy.deepcopy(model.generation_config)
    known = {name: value for name, value in overrides.items() if value is not None}
    config.num_return_sequences, config.return_dict_in_generate = 1, False
    config.update(max_new_tokens=options.max_new_tokens, do_sample=False, **known)
    generation_mode.check(config)
    # ``TokenChoiceProcessor`` samples, ``StopSequences`` stops; ``max_length`` is deprecated.
    for name in ("temperature", "top_p", "top_k", "stop_strings", "max_length"):
        setattr(config, name, None)
    tokens = SpecialTokens.of(model, tokenizer)
    config.eos_token_id = list(tokens.ends) or None
    config.pad_token_id = tokens.padding
    if model.config.is_encoder_decoder:
        config.decoder_start_token_id = tokens.start
    return config  # type: ignore[no-any-return]


def _texts(one_or_more: Any) -> list[str]:
    """The stop sequences in a model's files: none, one, or a list."""
    if one_or_more is None:
        return []
    return [one_or_more] if isinstance(one_or_more, str) else list(one_or_more)
