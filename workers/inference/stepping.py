"""Rows that are written together, some tokens at a time, by the ``generate`` of transformers.

Between two calls of it rows may leave, and others be put beside them: their tokens end at the same
place, and what lies before a shorter row is masked. So do the keys and values of the cache.
"""

from __future__ import annotations

import bisect
import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.cache_utils import DynamicLayer

from workers.inference.choosing import Choosing, Sampling, Steps
from workers.inference.measuring import Beat

FROM_THE_PROMPT = (
    "begin_suppress_tokens",
    "cache_implementation",
    "exponential_decay_length_penalty",
    "guidance_scale",
    "min_new_tokens",
    "watermarking_config",
)
"""Settings of a model's own that count from where a call begins, or have a state of their own."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model reads of a row, and how it goes on: without ``sampling`` likeliest first."""

    row: int
    ids: list[int]
    steps: int  # tokens that it may write
    truncated: bool = False
    sampling: Sampling | None = None

    @property
    def length(self) -> int:
        """Tokens that it may come to have."""
        return len(self.ids) + self.steps


@dataclass(slots=True)
class Line:
    """What a prompt's row has come to."""

    prompt: Prompt
    new: list[int] = field(default_factory=list)
    together: bool = False  # with other rows, which may move the last bits of its scores
    doubt: bool = False  # a choice could have been another for that
    broken: bool = False  # there was none, as scores were no numbers

    @property
    def left(self) -> int:
        """Tokens that it may still write."""
        return self.prompt.steps - len(self.new)


@dataclass(slots=True)
class Group:
    """Lines with all their tokens, at the right end of ``ids`` (lines, width), where ``mask`` is 1.

    ``cache`` has keys and values of all but the last token, or of none if nothing was read yet;
    without one the group is written in one call.
    """

    lines: list[Line]
    ids: torch.Tensor
    mask: torch.Tensor
    cache: DynamicCache | None

    @property
    def width(self) -> int:
        """Tokens of the longest line, so far."""
        return self.ids.shape[1]

    def of(self, places: Sequence[int]) -> Group:
        """The lines in these places, as wide as the longest of them."""
        assert self.cache is not None
        rows = torch.tensor(places, device=self.ids.device)
        mask = self.mask[rows]
        start = int(mask.any(dim=0).int().argmax())
        states = [
            (keys[rows, :, start:], values[rows, :, start:]) for keys, values in _states(self.cache)
        ]
        lines = [self.lines[place] for place in places]
        return Group(lines, self.ids[rows, start:], mask[:, start:], DynamicCache(states))

    def beside(self, other: Group) -> Group:
        """The lines of both, this one's first."""
        assert self.cache is not None
        assert other.cache is not None
        states = [
            (_stacked(keys, new_keys, behind=1), _stacked(values, new_values, behind=1))
            for (keys, values), (new_keys, new_values) in zip(
                _states(self.cache), _states(other.cache), strict=True
            )
        ]
        return Group(
            [*self.lines, *other.lines],
            _stacked(self.ids, other.ids),
            _stacked(self.mask, other.mask),
            DynamicCache(states),
        )


def _stacked(one: torch.Tensor, other: torch.Tensor, *, behind: int = 0) -> torch.Tensor:
    """Lines of both, as wide as the wider ones, with zeros before the others' tokens.

    That dimension has so many ``behind`` it.
    """
    width = max(each.shape[-1 - behind] for each in (one, other))
    return torch.cat(
        [
            functional.pad(each, (*(0, 0) * behind, width - each.shape[-1 - behind], 0))
            for each in (one, other)
        ]
    )


def _states(cache: DynamicCache) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values of each layer, (lines, heads, width, size)."""
    found: list[Any] = cache.layers
    return [(layer.keys, layer.values) for layer in found]


class Stepper:
    """A model that writes, and where its texts end. For one thread at a time."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        tokenizer: PreTrainedTokenizerBase,
        config: GenerationConfig,
        stops: Sequence[str],
        ends: frozenset[int],
    ) -> None:
        self._model: Any = model
        self._tokenizer: Any = tokenizer
        self._config = config
        self._stops = stops
        self._ends = ends
        self._reads = bool(model.config.is_encoder_decoder)  # apart from what it writes
        self._one_beam = (config.num_beams or 1) == 1
        self.can_pause = self._cache() is not None

    def group(self, prompts: Sequence[Prompt]) -> Group:
        """The prompts, not read yet; a causal model's are filled up at the left."""
        longest = max(len(prompt.ids) for prompt in prompts)
        ids = torch.full((len(prompts), longest), int(self._config.pad_token_id or 0))
        mask = torch.zeros_like(ids)
        for place, prompt in enumerate(prompts):
            size = len(prompt.ids)
            inside = slice(0, size) if self._reads else slice(longest - size, longest)
            ids[place, inside] = torch.tensor(prompt.ids)
            mask[place, inside] = 1
        device = self._model.device
        lines = [Line(prompt) for prompt in prompts]
        return Group(lines, ids.to(device), mask.to(device), self._cache())

    def _cache(self) -> DynamicCache | None:
        """An empty cache that rows can leave and join; ``None``: not with this model."""
        config: Any = self._config
        if config.use_cache is False or not self._model._supports_default_dynamic_cache():  # noqa: SLF001
            return None
        if self._reads or not self._one_beam:
            return None
        if any(getattr(config, name, None) for name in FROM_THE_PROMPT):
            return None
        made = DynamicCache(config=self._model.config)
        return made if {type(layer) for layer in made.layers} <= {DynamicLayer} else None

    @torch.inference_mode()
    def step(self, group: Group, *, most: int, beat: Beat, pause: float | None = None) -> None:
        """Give each line up to ``most`` new tokens, or fewer where it ends.

        With ``pause`` that is over as soon as this share of the lines has ended. No line may have
        less than ``most`` left.
        """
        read = 1 if self._reads else group.width
        choosing = None
        if self._one_beam:
            choosing = Choosing([_steps(line, most) for line in group.lines])
        criteria: list[StoppingCriteria] = [Beating(beat)]
        if pause is not None:
            ends = self._ends | {int(self._config.pad_token_id or 0)}  # which follows a stop text
            criteria.append(Pausing(sorted(ends), share=pause))
        cached = {} if group.cache is None else {"past_key_values": group.cache}
        found: torch.Tensor = self._model.generate(
            input_ids=group.ids,
            attention_mask=group.mask,
            generation_config=self._config_of(most),
            logits_processor=LogitsProcessorList([choosing] if choosing else []),
            stopping_criteria=StoppingCriteriaList(criteria),
            **cached,
            **({"tokenizer": self._tokenizer} if self._stops else {}),
        )
        before = [len(line.new) for line in group.lines]
        for line, new in zip(group.lines, found[:, read:].tolist(), strict=True):
            line.new = self._cut([*line.new, *new])
        if choosing is not None:
            doubts, broken = choosing.doubts(), choosing.broken()
            for place, line in enumerate(group.lines):
                steps = len(line.new) - before[place]
                line.together |= len(group.lines) > 1
                line.doubt |= line.together and bool(doubts[place, :steps].any())
                line.broken |= bool(broken[place, :steps].any())
        if not self._reads:
            group.mask = functional.pad(group.mask, (0, found.shape[1] - read), value=1)
            group.ids = found

    def _config_of(self, steps: int) -> GenerationConfig:
        config = copy.copy(self._config)
        config.max_new_tokens = steps
        return config

    def has_ended(self, line: Line) -> bool:
        """Whether nothing more is to be written."""
        return not line.left or self.is_stopped(line)

    def is_stopped(self, line: Line) -> bool:
        """Whether the model, or a stop text, ended it."""
        return bool(line.new) and (line.new[-1] in self._ends or self._says_stop(line.new))

    def said(self, line: Line) -> str:
        """The line's text, up to a stop text."""
        said = self._decoded(line.new)
        ends = [place for text in self._stops if (place := said.find(text)) >= 0]
        return said[: min(ends, default=None)]

    def _cut(self, new: list[int]) -> list[int]:
        """New tokens up to the one that ends them; the rest has filled a batch up."""
        end = next((place for place, token in enumerate(new) if token in self._ends), len(new))
        new = new[: end + 1]
        stop = bisect.bisect_left(range(len(new)), 1, key=lambda n: self._says_stop(new[:n]))
        return new[:stop]

    def _says_stop(self, new: list[int]) -> bool:
        """Whether these tokens say a stop text, which may be a special token's name."""
        if not self._stops:
            return False
        said = self._decoded(new), str(self._tokenizer.decode(new))
        return any(text in each for text in self._stops for each in said)

    def _decoded(self, new: list[int]) -> str:
        return str(self._tokenizer.decode(new, skip_special_tokens=True))


def _steps(line: Line, most: int) -> Steps:
    done = len(line.new)
    return Steps(line.prompt.row, line.prompt.sampling, first=done, end=done + most)


class Beating(StoppingCriteria):
    """Shows after every token that the work goes on; stops nothing but by what ``beat`` raises."""

    def __init__(self, beat: Beat) -> None:
        self._beat = beat

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # noqa: ARG002
        """No row is done."""
        self._beat()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class Pausing(StoppingCriteria):
    """Every row is done as soon as a share of them has said one of these tokens."""

    def __init__(self, ends: Sequence[int], *, share: float) -> None:
        self._ends = torch.tensor(ends, dtype=torch.long)
        self._share = share
        self._ended: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # noqa: ARG002
        """All rows, or none."""
        last = torch.isin(input_ids[:, -1], self._ends.to(input_ids.device))
        self._ended = last if self._ended is None else self._ended | last
        return (self._ended.sum() >= self._share * len(last)).expand(len(last))
