"""Models that write: prompts in, texts out, through the ``generate`` of transformers.

Prompts go through the device together, longest first, by a budget of the tokens that they may come
to have. What a row writes depends on no other row (see ``choosing``); with several beams, and in
half precision, that holds but for rounding.
"""

from __future__ import annotations

import bisect
import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from jobs.rows import RowCode
from jobs.settings import Settings
from jobs.specs import WriteOptions
from workers.inference import loading
from workers.inference.budget import Budget, Work
from workers.inference.choosing import Choosing, Sampling
from workers.inference.measuring import NOT_FINITE, Beat, RowError
from workers.inference.reading import Item

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

    def columns(self) -> dict[str, Any]:
        """As in ``jobs.rows.WRITTEN_SCHEMA``."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model reads of a row, and how it goes on: without ``sampling`` likeliest first."""

    row: int
    ids: list[int]
    steps: int  # tokens that it may write
    truncated: bool = False
    sampling: Sampling | None = None


Read = Callable[[int, Any], Prompt | RowError]
"""What makes a prompt of a row's number and of the row itself, an ``Item``."""


class Writer:
    """A loaded model that writes. For one thread at a time.

    ``config`` is what transformers is told, ``options`` what the job was; with several beams the
    likeliest is chosen.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        tokenizer: PreTrainedTokenizerBase,
        config: GenerationConfig,
        options: WriteOptions,
        settings: Settings,
    ) -> None:
        self._model: Any = model
        self._tokenizer: Any = tokenizer
        self._config = config
        self._stops = options.stop
        self._certain = model.dtype is torch.float32  # choices in doubt are made again, alone
        self._budget = Budget(BUDGETS * loading.budget(settings, device=model.device))
        self._reads = bool(model.config.is_encoder_decoder)  # apart from what it writes
        self._ends = _as_set(config.eos_token_id)

    def answer(
        self, texts: Mapping[int, Item], *, read: Read, beat: Beat
    ) -> dict[int, Written | RowError]:
        """A text for every row, which ``read`` makes a prompt of, or an error."""
        prompts = [read(row, text) for row, text in texts.items()]
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

    def write(self, prompts: Sequence[Prompt], *, beat: Beat) -> dict[int, Written | RowError]:
        """What is written for each prompt's row. ``beat`` is called after every token."""
        written: dict[int, Written | RowError] = {}
        doubtful: list[Prompt] = []

        def run(batch: list[Prompt]) -> None:
            for prompt, (text, doubt) in zip(batch, self._run(batch, beat=beat), strict=True):
                written[prompt.row] = text
                if doubt and len(batch) > 1:
                    doubtful.append(prompt)

        def refuse(prompt: Prompt) -> None:
            message = f"a prompt of {len(prompt.ids)} tokens does not fit into the device's memory"
            written[prompt.row] = RowError(RowCode.OUT_OF_MEMORY, message)

        work = Work(
            length=self._length,
            run=run,
            refuse=refuse,
            beat=beat,
            finish=lambda: None,  # what was written is here already
        )
        for some in _alike(prompts):
            self._budget.do(some, work)
        for prompt in doubtful:
            self._budget.alone(prompt, work)
        return written

    def _length(self, prompt: Prompt) -> int:
        return len(prompt.ids) + prompt.steps

    def _run(self, batch: list[Prompt], *, beat: Beat) -> list[tuple[Written | RowError, bool]]:
        """Each prompt's text, and whether a choice in it is in doubt."""
        ids, choosing = self._generate(batch, beat=beat)
        if choosing is None:
            return [
                (self._text(prompt, new), False) for prompt, new in zip(batch, ids, strict=True)
            ]
        doubts, broken = choosing.doubts(), choosing.broken()
        found: list[tuple[Written | RowError, bool]] = []
        for place, (prompt, new) in enumerate(zip(batch, ids, strict=True)):
            steps = len(new)
            if broken[place, :steps].any():
                found.append((NOT_FINITE, False))
            else:
                doubt = self._certain and bool(doubts[place, :steps].any())
                found.append((self._text(prompt, new), doubt))
        return found

    @torch.inference_mode()
    def _generate(
        self, batch: list[Prompt], *, beat: Beat
    ) -> tuple[list[list[int]], Choosing | None]:
        """New token ids of each prompt, up to its end; how they were chosen, but for beams."""
        inputs = self._inputs(batch)
        read = 1 if self._reads else inputs["input_ids"].shape[1]
        [steps] = {prompt.steps for prompt in batch}
        one_beam = (self._config.num_beams or 1) == 1
        choosing = None
        if one_beam:
            choosing = Choosing([(prompt.row, prompt.sampling) for prompt in batch], steps=steps)
        found = self._model.generate(
            **inputs,
            generation_config=self._config_of(steps),
            logits_processor=LogitsProcessorList([choosing] if choosing else []),
            stopping_criteria=StoppingCriteriaList([Beating(beat)]),
            **({"tokenizer": self._tokenizer} if self._stops else {}),
        )
        return [self._ended(ids) for ids in found[:, read:].cpu().tolist()], choosing

    def _config_of(self, steps: int) -> GenerationConfig:
        config = copy.copy(self._config)
        config.max_new_tokens = steps
        return config

    def _inputs(self, batch: list[Prompt]) -> dict[str, torch.Tensor]:
        """Ids and mask (prompts, longest); a causal model's are filled up at the left."""
        longest = max(len(prompt.ids) for prompt in batch)
        ids = torch.full((len(batch), longest), int(self._config.pad_token_id or 0))
        mask = torch.zeros_like(ids)
        for place, prompt in enumerate(batch):
            size = len(prompt.ids)
            inside = slice(0, size) if self._reads else slice(longest - size, longest)
            ids[place, inside] = torch.tensor(prompt.ids)
            mask[place, inside] = 1
        device = self._model.device
        return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}

    def _ended(self, ids: list[int]) -> list[int]:
        """A row's new tokens up to the one that ends it; the rest fills the batch up."""
        end = next((place for place, token in enumerate(ids) if token in self._ends), len(ids))
        new = ids[: end + 1]
        stop = bisect.bisect_left(range(len(new)), 1, key=lambda n: self._stop(new[:n]) >= 0)
        return new[:stop]

    def _stop(self, new: list[int]) -> int:
        """Where the first stop text begins in what these tokens say; -1: there is none.

        A character of which some bytes are still to come (U+FFFD at the end) is not yet said:
        what has been found in a text's beginning is therefore found in all of it as well.
        """
        if not self._stops:
            return -1
        said = self._decode(new).rstrip("\ufffd")
        return min((place for text in self._stops if (place := said.find(text)) >= 0), default=-1)

    def _decode(self, new: list[int]) -> str:
        return str(self._tokenizer.decode(new, skip_special_tokens=True))

    def _text(self, prompt: Prompt, new: list[int]) -> Written:
        stop = self._stop(new)
        stopped = stop >= 0 or (bool(new) and new[-1] in self._ends)
        said = self._decode(new)
        return Written(
            output=said if stop < 0 else said[:stop],
            finish_reason="stop" if stopped else "length",
            tokens=len(prompt.ids),
            output_tokens=len(new),
            truncated=prompt.truncated,
        )


class Beating(StoppingCriteria):
    """Shows after every token that the work goes on; stops nothing but by what ``beat`` raises."""

    def __init__(self, beat: Beat) -> None:
        self._beat = beat

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # noqa: ARG002
        """No row is done."""
        self._beat()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def _alike(prompts: Sequence[Prompt]) -> Iterable[list[Prompt]]:
    """Prompts that may write equally much. Others must not share a batch.

    Whoever has ended is stepped on with the batch, and could leave the model's positions.
    """
    found: dict[int, list[Prompt]] = {}
    for prompt in prompts:
        found.setdefault(prompt.steps, []).append(prompt)
    return found.values()


def config(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    options: WriteOptions,
    **given: Any,
) -> GenerationConfig:
    """The model's own settings with those that were given; the token is chosen by ``Choosing``."""
    found: Any = copy.deepcopy(model.generation_config)
    known = {name: value for name, value in given.items() if value is not None}
    found.num_return_sequences, found.return_dict_in_generate = 1, False
    found.update(max_new_tokens=options.max_new_tokens, do_sample=False, **known)
    found.stop_strings = list(options.stop) or None
    for name in ("temperature", "top_p", "top_k", "max_length"):  # said of sampling, or of old
        setattr(found, name, None)
    if found.eos_token_id is None:
        found.eos_token_id = tokenizer.eos_token_id
    if found.pad_token_id is None:
        ends = sorted(_as_set(found.eos_token_id))
        pad = tokenizer.pad_token_id
        found.pad_token_id = pad if pad is not None else (ends or [0])[0]
    return found  # type: ignore[no-any-return]


def _as_set(ids: int | Sequence[int] | None) -> frozenset[int]:
    if ids is None:
        return frozenset()
    return frozenset((ids,) if isinstance(ids, int) else ids)
