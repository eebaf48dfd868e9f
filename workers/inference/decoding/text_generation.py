"""Models that write: prompts in, texts out, through the ``generate`` of transformers.

Prompts go through the device together, longest first, by a budget of the tokens that they may come
to have. What a row writes depends on no other row (see ``choosing``); with several beams, and in
half precision, that holds but for rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from jobs.kinds import WriteOptions
from jobs.results.schemas import RowCode
from jobs.settings import Settings
from workers import time_limits
from workers.inference import model_loader, row_isolation
from workers.inference.batching.batcher import Fill
from workers.inference.batching.forward import NOT_FINITE, Beat, RowError
from workers.inference.batching.token_budget import Budget, Work
from workers.inference.batching.tokenization import Item, counted, unknown_token
from workers.inference.decoding import generation_mode
from workers.inference.decoding.continuous_batching import Flow
from workers.inference.decoding.decoder import Line, Prompt, Stepper
from workers.inference.probes import decoding_probe, preflight
from workers.inference.special_tokens import SpecialTokens

BUDGETS = 8
"""Writing takes so many times the tokens of a single pass: every step reads all weights anew."""


@dataclass(frozen=True, slots=True)
class Written:
    """What the model wrote for a row."""

    output: str
    finish_reason: Literal["stop", "length"]
    tokens: int  # that the model read
    output_tokens: int  # that it wrote, the one that ends the text included
    truncated: bool  # the row's text was longer than what the model read
    unknown: int = 0  # tokens that it read and the tokenizer does not know

    def columns(self) -> dict[str, Any]:
        """As in ``jobs.results.schemas.WRITTEN_SCHEMA``."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "unknown"}


Read = Callable[[int, Any], Prompt | RowError]
"""What makes a prompt of a row's number and of the row itself, an ``Item``."""


class Writer:
    """A loaded model that writes. For one thread at a time.

    ``config`` is what transformers is told, ``options`` what the job was; with several beams the
    likeliest is chosen. What the model reads has ``room`` for so many tokens.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        tokenizer: PreTrainedTokenizerBase,
        config: GenerationConfig,
        options: WriteOptions,
        settings: Settings,
        digest: str,
        room: int | None,
    ) -> None:
        own = model.generation_config
        self._stepper = Stepper(
            model,
            tokenizer=tokenizer,
            config=config,
            stops=options.stop or _texts(own.stop_strings),
            tokens=SpecialTokens.of(model, tokenizer),
        )
        # What ``generate`` would take from there where the config says nothing.
        own.stop_strings = own.eos_token_id = None
        self.sharing = decoding_probe.share(
            self._stepper,
            model,
            tokenizer=tokenizer,
            settings=settings,
            digest=digest,
            room=room,
        )
        self._unknown = unknown_token(tokenizer)
        self._tokenizer = tokenizer
        self._certain = model.dtype is torch.float32  # choices in doubt are made again, alone
        self._budget = Budget(BUDGETS * model_loader.budget(settings, device=model.device))
        self._tally = row_isolation.Tally("the tokenizer or its chat template")

    def check(self, *, read: Read, room: int | None) -> None:
        """Raise ``ModelFailure`` if the model cannot write with these options at all.

        ``room``: tokens that a prompt may have, where that is known.
        """
        preflight.check_writing(self._stepper, tokenizer=self._tokenizer, read=read, room=room)

    def answer(
        self, texts: Mapping[int, Item], *, read: Read, beat: Beat
    ) -> dict[int, Written | RowError]:
        """A text for every row, which ``read`` makes a prompt of, or an error."""
        prompts = [self._prompt(read, row, text) for row, text in texts.items()]
        found = self.write([each for each in prompts if isinstance(each, Prompt)], beat=beat)
        return {
            row: found[row] if isinstance(prompt, Prompt) else prompt
            for row, prompt in zip(texts, prompts, strict=True)
        }

    def answer_once(
        self, texts: Mapping[int, str], *, read: Read, beat: Beat
    ) -> dict[int, Written | RowError]:
        """The same, where equal texts have equal answers: the first one's."""
        firsts: dict[str, int] = {}
        for row, text in texts.items():
            firsts.setdefault(text, row)
        found = self.answer({row: text for text, row in firsts.items()}, read=read, beat=beat)
        return {row: found[firsts[text]] for row, text in texts.items()}

    def _prompt(self, read: Read, row: int, text: Item) -> Prompt | RowError:
        try:
            with time_limits.reading(), time_limits.interrupted():
                prompt = read(row, text)
        except BaseException as error:  # noqa: BLE001 - what is no row's fault is raised by check
            row_isolation.check(error)
            return RowError(RowCode.ROW_FAILED, self._tally.raised(row_isolation.reason(error)))
        self._tally.answered(1)
        return prompt

    def write(self, prompts: Sequence[Prompt], *, beat: Beat) -> dict[int, Written | RowError]:
        """What is written for each prompt's row. ``beat`` is called after every token."""
        written: dict[int, Written | RowError] = {}
        doubtful: list[Prompt] = []

        def keep(line: Line) -> None:
            written[line.prompt.row] = self._answer(line)
            if self._certain and line.doubt and not line.broken:
                doubtful.append(line.prompt)

        def refuse(prompt: Prompt) -> None:
            message = f"a prompt of {len(prompt.ids)} tokens does not fit into the device's memory"
            written[prompt.row] = RowError(RowCode.OUT_OF_MEMORY, message)

        def fail(prompt: Prompt, message: str) -> None:
            written[prompt.row] = RowError(RowCode.ROW_FAILED, message)

        ending = row_isolation.ending(beat)
        work = self._work(keep, refuse=refuse, fail=fail, beat=ending)
        self._write_together(prompts, work, keep=keep, beat=ending)
        again, doubtful = doubtful, []
        for prompt in again:
            self._budget.alone(prompt, work)
        return written

    def _write_together(
        self,
        prompts: Sequence[Prompt],
        work: Work[Prompt],
        *,
        keep: Callable[[Line], None],
        beat: Beat,
    ) -> None:
        if len(prompts) == 1 or not self._stepper.can_pause:
            self._write_alike(prompts, work)
            return
        flow = Flow(prompts, stepper=self._stepper)
        while not self._flows(flow, work, keep=keep, beat=beat):
            pass

    def _write_alike(self, prompts: Sequence[Prompt], work: Work[Prompt]) -> None:
        """In batches that are written from their beginning to their end."""
        for some in _alike(prompts, fill=self._stepper.fill):
            self._budget.do(some, work)

    def _flows(
        self, flow: Flow, work: Work[Prompt], *, keep: Callable[[Line], None], beat: Beat
    ) -> bool:
        """Let the prompts flow; ``False`` if some of those that are left must still be written.

        Those under way when memory ran out wait again, with less beside them; when the model
        raised, they are written apart from the others.
        """
        stopped: list[Prompt] = []

        def done(line: Line) -> None:
            keep(line)
            self._budget.tally.answered(1)

        def run() -> None:
            flow.run(lambda: self._budget.tokens, beat=beat, done=done)

        try:
            if self._budget.bears(run, release=lambda: stopped.extend(flow.put_back())):
                return True
        except BaseException as error:
            row_isolation.check(error)
            suspects = flow.take_out()
            if not suspects:
                raise
        else:
            if len(stopped) == 1:
                work.refuse(flow.drop())
            else:
                self._budget.halve([prompt.length for prompt in stopped])
            return False
        self._write_alike(suspects, work)
        return False

    def _work(
        self,
        keep: Callable[[Line], None],
        *,
        refuse: Callable[[Prompt], None],
        fail: Callable[[Prompt, str], None],
        beat: Beat,
    ) -> Work[Prompt]:
        """Batches that are written from their beginning to their end."""

        def run(batch: list[Prompt]) -> None:
            group = self._stepper.group(batch)
            self._stepper.step(group, most=min(prompt.steps for prompt in batch), beat=beat)
            for line in group.lines:
                keep(line)

        return Work(
            length=lambda prompt: prompt.length,
            run=run,
            refuse=refuse,
            fail=fail,
            beat=beat,
            finish=lambda: None,  # what was written is here already
            fill=Fill.ALONE if self._stepper.fill is Fill.ALONE else Fill.PAD,
        )

    def _answer(self, line: Line) -> Written | RowError:
        if line.broken:
            return NOT_FINITE
        return Written(
            output=self._stepper.said(line),
            finish_reason="stop" if line.stopped else "length",
            tokens=len(line.prompt.ids),
            output_tokens=len(line.new),
            truncated=line.prompt.truncated,
            unknown=counted(self._unknown, line.prompt.ids),
        )


def _alike(prompts: Sequence[Prompt], *, fill: Fill) -> Iterable[list[Prompt]]:
    """Prompts that may write equally much. Others must not share a batch.

    Whoever has ended is stepped on with the batch, and could leave the model's positions. Where
    nothing may be filled up, the prompts are of one length too.
    """
    found: dict[tuple[int, int], list[Prompt]] = {}
    for prompt in prompts:
        found.setdefault((prompt.steps, 0 if fill is Fill.PAD else len(prompt.ids)), []).append(
            prompt
        )
    return found.values()


def config(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    options: WriteOptions,
    **given: Any,
) -> GenerationConfig:
    """The model's own settings with those that were given; the token is chosen by ``Choosing``."""
    generation_mode.leave_out_speculation(model)
    found: Any = copy.deepcopy(model.generation_config)
    known = {name: value for name, value in given.items() if value is not None}
    found.num_return_sequences, found.return_dict_in_generate = 1, False
    found.update(max_new_tokens=options.max_new_tokens, do_sample=False, **known)
    generation_mode.check(found)
    # What is said of sampling, is done by ``Stops``, or is of old.
    for name in ("temperature", "top_p", "top_k", "stop_strings", "max_length"):
        setattr(found, name, None)
    tokens = SpecialTokens.of(model, tokenizer)
    found.eos_token_id = list(tokens.ends) or None
    found.pad_token_id = tokens.padding
    if model.config.is_encoder_decoder:
        found.decoder_start_token_id = tokens.start
    return found  # type: ignore[no-any-return]


def _texts(one_or_more: Any) -> list[str]:
    """As a model's files have texts that end an output: none, one, or a list."""
    if one_or_more is None:
        return []
    return [one_or_more] if isinstance(one_or_more, str) else list(one_or_more)
