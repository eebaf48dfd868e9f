"""Rows that are written together, some tokens at a time, by the ``generate`` of transformers.

Between two calls of it rows may leave, and others be put beside them: their tokens end at the same
place, and what lies before a shorter row is masked. So do the keys and values of the cache.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch.nn import functional
from transformers import (
    DynamicCache,
    GenerationConfig,
    GenerationMixin,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)
from transformers.cache_utils import DynamicLayer

from workers.architectures import LSTMConfig
from workers.inference import special_tokens
from workers.inference.batching.batcher import Fill
from workers.inference.batching.forward import Beat
from workers.inference.decoding.sampling import Choosing, Sampling, Span
from workers.inference.decoding.stop_sequences import Beating, Ending, Stops
from workers.inference.probes.batch_sharing import Verdict
from workers.inference.probes.module_snapshot import Snapshot
from workers.inference.special_tokens import SpecialTokens

OF_SAMPLING_AND_BEAMS = frozenset(
    {
        "diversity_penalty",
        "early_stopping",
        "epsilon_cutoff",
        "eta_cutoff",
        "length_penalty",
        "min_p",
        "num_beam_groups",
        "temperature",
        "top_h",
        "top_k",
        "top_p",
        "typical_p",
    }
)
"""Settings of a model's own that mean nothing here: tokens are chosen by ``Choosing``."""

IN_PIECES = OF_SAMPLING_AND_BEAMS | {
    "_from_model_config",
    "bos_token_id",
    "decoder_start_token_id",
    "eos_token_id",
    "max_new_tokens",
    "num_beams",
    "num_return_sequences",
    "pad_token_id",
    "renormalize_logits",
    "repetition_penalty",
    "suppress_tokens",
    "transformers_version",
    "use_cache",
}
"""Settings that mean the same in one call of ``generate`` and in several. Others of a model's own
may count from where a call begins, or look at what fills a row up."""

BEYOND_PADDING = IN_PIECES | {
    "begin_suppress_tokens",
    "exponential_decay_length_penalty",
    "forced_eos_token_id",
    "min_new_tokens",
    "remove_invalid_values",
}
"""Settings of a causal model that mean the same beside padding at the left: of the processors of
transformers 5.23, those that look at no token of the prompt, or at the mask as well, and count from
its end. With others, prompts of one length go together: n-grams, biases of sequences, bad words,
watermarks and penalties of the prompt would take padding for text; ``min_length`` and a forced
first token count it."""

BESIDE_AN_ENCODER = BEYOND_PADDING | {
    "bad_words_ids",
    "forced_bos_token_id",
    "min_length",
    "no_repeat_ngram_size",
    "sequence_bias",
    "watermarking_config",
}
"""The same where padding is what the encoder reads; the tokens of a decoder have none. Left out
are penalties and n-grams of what the encoder reads, and guidance."""

CLOSENESS = (Fill.PAD, Fill.LENGTH, Fill.ALONE)
"""From rows that may be filled up to rows that must be alone."""

POSITIONS_FROM_MASK = frozenset({"bloom", "mpt", LSTMConfig.model_type})
"""Models that are given no positions, and find them from the mask or from the right end."""


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
    stopped: bool = False  # the model, or a stop text, has ended it
    together: bool = False  # with other rows, which may move the last bits of its scores
    doubt: bool = False  # a choice could have been another for that
    broken: bool = False  # there was none, as scores were no numbers

    @property
    def left(self) -> int:
        """Tokens that it may still write."""
        return 0 if self.stopped else self.prompt.steps - len(self.new)


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

    def keep(self, places: Sequence[int]) -> None:
        """The lines in these places stay, as wide as the longest of them."""
        assert self.cache is not None
        start = int(self.mask[list(places)].any(dim=0).int().argmax())
        self.lines = [self.lines[place] for place in places]
        self.ids, self.mask = self.ids[list(places), start:], self.mask[list(places), start:]
        for layer in _layers(self.cache):  # one after the other: memory holds only one twice
            rows = torch.tensor(places, device=layer.keys.device)
            layer.keys = layer.keys[rows, :, start:]
            layer.values = layer.values[rows, :, start:]

    def join(self, other: Group) -> None:
        """Take in the lines of another one, which is used up."""
        assert self.cache is not None
        assert other.cache is not None
        self.lines = [*self.lines, *other.lines]
        self.ids = _stacked(self.ids, other.ids)
        self.mask = _stacked(self.mask, other.mask)
        for layer, new in zip(_layers(self.cache), _layers(other.cache), strict=True):
            layer.keys = _stacked(layer.keys, new.keys, behind=1)
            layer.values = _stacked(layer.values, new.values, behind=1)
            new.keys = new.values = None


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


def _layers(cache: DynamicCache) -> list[Any]:
    """With keys and values (lines, heads, width, size) each."""
    return list(cache.layers)


class Stepper:
    """A model that writes, and where its texts end. For one thread at a time."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        tokenizer: PreTrainedTokenizerBase,
        config: GenerationConfig,
        stops: Sequence[str],
        tokens: SpecialTokens,
    ) -> None:
        self._model: Any = model
        self._tokenizer: Any = tokenizer
        self._config = config
        self.fresh = Snapshot(model)  # before anything was computed
        self.tokens = tokens
        self._rows = special_tokens.table(model)
        self._ends = torch.tensor(tokens.ends, dtype=torch.long, device=model.device)
        self._stops = Stops(stops, tokenizer=tokenizer)
        self._reads = bool(model.config.is_encoder_decoder)  # apart from what it writes
        self._one_beam = (config.num_beams or 1) == 1
        self.fill = Fill.PAD if self._may_pad() else Fill.LENGTH
        self._in_pieces = self._cache() is not None
        self._resets = self._seeds = False

    @property
    def can_pad(self) -> bool:
        """Whether rows of different lengths can share a batch."""
        return self.fill is Fill.PAD

    @property
    def can_pause(self) -> bool:
        """Whether rows can leave a batch and join it between two calls of ``step``."""
        return self._in_pieces and self.can_pad

    def obey(self, verdict: Verdict) -> None:
        """Let rows share batches as the probe found, or less closely."""
        if CLOSENESS.index(verdict.fill) > CLOSENESS.index(self.fill):
            self.fill = verdict.fill
        self._in_pieces &= verdict.in_pieces
        self._resets, self._seeds = verdict.resets, verdict.seeds

    def with_config(self, config: GenerationConfig) -> Self:
        """The same model with other settings, whose texts end nowhere."""
        found = copy.copy(self)
        found.__dict__ |= {
            "_config": config,
            "_one_beam": True,
            "_ends": self._ends[:0],
            "_stops": Stops((), tokenizer=self._tokenizer),
        }
        return found

    def group(self, prompts: Sequence[Prompt]) -> Group:
        """The prompts, not read yet; a causal model's are filled up at the left."""
        if self._resets:
            self.fresh.restore()
        if self._seeds:
            torch.manual_seed(0)
        longest = max(len(prompt.ids) for prompt in prompts)
        ids = torch.full((len(prompts), longest), self.tokens.padding)
        mask = torch.zeros_like(ids)
        for place, prompt in enumerate(prompts):
            special_tokens.check_in_table(prompt.ids, rows=self._rows)
            size = len(prompt.ids)
            inside = slice(0, size) if self._reads else slice(longest - size, longest)
            ids[place, inside] = torch.tensor(prompt.ids)
            mask[place, inside] = 1
        device = self._model.device
        lines = [Line(prompt) for prompt in prompts]
        cache = self._cache() if self._in_pieces else None
        return Group(lines, ids.to(device), mask.to(device), cache)

    def _cache(self) -> DynamicCache | None:
        """An empty cache that rows can leave and join; ``None``: not with this model."""
        if self._reads or not self._one_beam or self._config.use_cache is False:
            return None
        if not _set(self._config) <= IN_PIECES:
            return None
        kind: Any = type(self._model)
        given = inspect.signature(kind.forward).parameters
        if (
            kind.prepare_inputs_for_generation is not GenerationMixin.prepare_inputs_for_generation
            or not kind._supports_default_dynamic_cache()  # noqa: SLF001 (no public name)
            or kind._is_stateful  # noqa: SLF001 (the same)
            or "past_key_values" not in given
        ):
            return None
        made = DynamicCache(config=self._model.config)
        return made if {type(layer) for layer in made.layers} <= {DynamicLayer} else None

    @torch.inference_mode()
    def step(
        self,
        group: Group,
        *,
        most: int,
        beat: Beat,
        pause: float | None = None,
        after: Sequence[LogitsProcessor] = (),
    ) -> None:
        """Give each line up to ``most`` new tokens, or fewer where it ends.

        With ``pause`` that is over as soon as this share of the lines has ended. No line may have
        less than ``most`` left. What comes ``after`` may choose other tokens.
        """
        read = 1 if self._reads else group.width
        choosing = None
        if self._one_beam:
            choosing = Choosing([_span(line, most) for line in group.lines])
        starts = [read - len(line.new) for line in group.lines]
        ending = Ending(self._ends, stops=self._stops, starts=starts, pause=pause)
        cached = {} if group.cache is None else {"past_key_values": group.cache}
        found: torch.Tensor = self._model.generate(
            input_ids=group.ids,
            attention_mask=group.mask,
            generation_config=self._config_of(most),
            logits_processor=LogitsProcessorList([*([choosing] if choosing else []), *after]),
            stopping_criteria=StoppingCriteriaList([Beating(beat), ending]),
            **cached,
        )
        counts = [
            self._write(line, new)
            for line, new in zip(group.lines, found[:, read:].tolist(), strict=True)
        ]
        if choosing is not None:
            doubts, broken = choosing.doubts(), choosing.broken()
            for place, (line, count) in enumerate(zip(group.lines, counts, strict=True)):
                line.together |= len(group.lines) > 1
                line.doubt |= line.together and bool(doubts[place, :count].any())
                line.broken |= bool(broken[place, :count].any())
        if group.cache is not None:
            assert group.cache.get_seq_length() == found.shape[1] - 1, "the model has another cache"
            group.mask = functional.pad(group.mask, (0, found.shape[1] - read), value=1)
            group.ids = found

    def _may_pad(self) -> bool:
        """Whether rows may be filled up, as far as settings and the model's call tell."""
        if self._reads:
            return _set(self._config) <= BESIDE_AN_ENCODER
        return _knows_positions(self._model) and _set(self._config) <= BEYOND_PADDING

    def _config_of(self, steps: int) -> GenerationConfig:
        config = copy.copy(self._config)
        config.max_new_tokens = steps
        return config

    def _write(self, line: Line, new: list[int]) -> int:
        """Add tokens to a line up to one that ends it, and say how many; others filled it up."""
        ends = set(self._ends.tolist())
        for count, token in enumerate(new, 1):
            line.new.append(token)
            if token in ends or self._stops.end(line.new):
                line.stopped = True
                return count
        return len(new)

    def said(self, line: Line) -> str:
        """The line's text, up to a stop text."""
        return self._stops.before(self._tokenizer.decode(line.new, skip_special_tokens=True))


def _set(config: GenerationConfig) -> set[str]:
    """The names of settings that are not as they always are."""
    return {name for name, value in config.to_diff_dict().items() if value}


def _knows_positions(model: Any) -> bool:
    """Whether a token's position is counted from its row's beginning, not from the batch's."""
    given = inspect.signature(model.forward).parameters
    return "position_ids" in given or model.config.model_type in POSITIONS_FROM_MASK


def _span(line: Line, most: int) -> Span:
    done = len(line.new)
    return Span(line.prompt.row, line.prompt.sampling, first=done, end=done + most)
