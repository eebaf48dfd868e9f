"""Decodes a batch of prompts, some tokens at a time, by the ``generate`` of transformers.

Between two calls rows may leave the batch and others join it (``decoding_batch``).
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
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

from jobs.progress import Beat
from workers.architectures import LSTMConfig
from workers.inference import special_tokens
from workers.inference.batching.batcher import BatchLayout
from workers.inference.decoding.decoding_batch import DecodingBatch, Prompt, SequenceState
from workers.inference.decoding.generation_settings import (
    RESUMABLE_SETTINGS,
    SAFE_BESIDE_PADDING,
    SAFE_WITH_ENCODER,
    changed,
)
from workers.inference.decoding.sampling import StepRange, TokenChoiceProcessor
from workers.inference.decoding.stop_sequences import (
    EndOfTextCriteria,
    HeartbeatCriteria,
    StopSequences,
)
from workers.inference.probes.batch_policy import BatchPolicy
from workers.inference.probes.module_snapshot import ModuleSnapshot
from workers.inference.special_tokens import SpecialTokens

LAYOUTS_BY_EFFICIENCY = (BatchLayout.PADDED, BatchLayout.EQUAL_LENGTH, BatchLayout.SINGLE)
"""Layouts of a batch of prompts, the closest first."""

POSITIONS_FROM_MASK = frozenset({"bloom", "mpt", LSTMConfig.model_type})
"""Models that take no positions, and derive them from the mask or from the right end."""


class Decoder:
    """A model that generates text, and where its texts end. For one thread at a time."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        tokenizer: PreTrainedTokenizerBase,
        config: GenerationConfig,
        stop_sequences: Sequence[str],
        tokens: SpecialTokens,
    ) -> None:
        self._model: Any = model
        self._tokenizer: Any = tokenizer
        self._config = config
        self.snapshot = ModuleSnapshot(model)  # before the first forward pass
        self.tokens = tokens
        self._embeddings = special_tokens.embedding_rows(model)
        self._ends = torch.tensor(tokens.ends, dtype=torch.long, device=model.device)
        self._stop_sequences = StopSequences(stop_sequences, tokenizer=tokenizer)
        self._has_encoder = bool(model.config.is_encoder_decoder)
        self._one_beam = (config.num_beams or 1) == 1
        self.layout = BatchLayout.PADDED if self._allows_padding() else BatchLayout.EQUAL_LENGTH
        self._in_pieces = self._empty_cache() is not None
        self._resets = self._seeds = False

    @property
    def can_pad(self) -> bool:
        """Whether rows of different lengths can share a batch."""
        return self.layout is BatchLayout.PADDED

    @property
    def supports_continuous_batching(self) -> bool:
        """Whether rows can leave a batch and join it between two calls of ``step``."""
        return self._in_pieces and self.can_pad

    def apply(self, policy: BatchPolicy) -> None:
        """Let rows share batches as the policy allows, never more closely than before."""
        if LAYOUTS_BY_EFFICIENCY.index(policy.layout) > LAYOUTS_BY_EFFICIENCY.index(self.layout):
            self.layout = policy.layout
        self._in_pieces &= policy.in_pieces
        self._resets, self._seeds = policy.resets, policy.seeds

    def with_config(self, config: GenerationConfig) -> Self:
        """The same model with other settings, and no end-of-text tokens or stop sequences."""
        plain = copy.copy(self)
        plain.__dict__ |= {
            "_config": config,
            "_one_beam": True,
            "_ends": self._ends[:0],
            "_stop_sequences": StopSequences((), tokenizer=self._tokenizer),
        }
        return plain

    def batch(self, prompts: Sequence[Prompt]) -> DecodingBatch:
        """The prompts before prefill; those of a causal model are left-padded."""
        if self._resets:
            self.snapshot.restore()
        if self._seeds:
            torch.manual_seed(0)
        longest = max(len(prompt.ids) for prompt in prompts)
        ids = torch.full((len(prompts), longest), self.tokens.padding)
        mask = torch.zeros_like(ids)
        for index, prompt in enumerate(prompts):
            special_tokens.check_ids(prompt.ids, rows=self._embeddings)
            size = len(prompt.ids)
            inside = slice(0, size) if self._has_encoder else slice(longest - size, longest)
            ids[index, inside] = torch.tensor(prompt.ids)
            mask[index, inside] = 1
        device = self._model.device
        sequences = [SequenceState(prompt) for prompt in prompts]
        cache = self._empty_cache() if self._in_pieces else None
        return DecodingBatch(sequences, ids.to(device), mask.to(device), cache)

    def _empty_cache(self) -> DynamicCache | None:
        """An empty KV cache that rows can leave and join; ``None``: not with this model."""
        if self._has_encoder or not self._one_beam or self._config.use_cache is False:
            return None
        if not changed(self._config) <= RESUMABLE_SETTINGS:
            return None
        kind: Any = type(self._model)
        parameters = inspect.signature(kind.forward).parameters
        if (
            kind.prepare_inputs_for_generation is not GenerationMixin.prepare_inputs_for_generation
            or not kind._supports_default_dynamic_cache()  # noqa: SLF001 (no public name)
            or kind._is_stateful  # noqa: SLF001 (the same)
            or "past_key_values" not in parameters
        ):
            return None
        cache = DynamicCache(config=self._model.config)
        return cache if {type(layer) for layer in cache.layers} <= {DynamicLayer} else None

    @torch.inference_mode()
    def step(
        self,
        batch: DecodingBatch,
        *,
        most: int,
        beat: Beat,
        pause: float | None = None,
        after: Sequence[LogitsProcessor] = (),
    ) -> None:
        """Generate up to ``most`` tokens for each sequence, or fewer where it ends.

        With ``pause`` the step is over as soon as this share of the sequences has ended. No
        sequence may have fewer than ``most`` remaining. Processors in ``after`` may choose other
        tokens.
        """
        prompt_width = 1 if self._has_encoder else batch.width
        choice = None
        if self._one_beam:
            choice = TokenChoiceProcessor([_steps(each, most) for each in batch.sequences])
        starts = [prompt_width - len(each.new_tokens) for each in batch.sequences]
        ends = EndOfTextCriteria(
            self._ends, stop_sequences=self._stop_sequences, starts=starts, pause=pause
        )
        cached = {} if batch.cache is None else {"past_key_values": batch.cache}
        generated: torch.Tensor = self._model.generate(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            generation_config=self._config_for(most),
            logits_processor=LogitsProcessorList([*([choice] if choice else []), *after]),
            stopping_criteria=StoppingCriteriaList([HeartbeatCriteria(beat), ends]),
            **cached,
        )
        counts = [
            self._append(sequence, new)
            for sequence, new in zip(
                batch.sequences, generated[:, prompt_width:].tolist(), strict=True
            )
        ]
        if choice is not None:
            _mark(batch.sequences, choice, counts=counts)
        if batch.cache is not None:
            assert batch.cache.get_seq_length() == generated.shape[1] - 1, (
                "the model has another cache"
            )
            batch.mask = functional.pad(batch.mask, (0, generated.shape[1] - prompt_width), value=1)
            batch.ids = generated

    def _allows_padding(self) -> bool:
        """Whether rows may be padded, as far as settings and the model's signature show."""
        if self._has_encoder:
            return changed(self._config) <= SAFE_WITH_ENCODER
        return _has_row_positions(self._model) and changed(self._config) <= SAFE_BESIDE_PADDING

    def _config_for(self, steps: int) -> GenerationConfig:
        config = copy.copy(self._config)
        config.max_new_tokens = steps
        return config

    def _append(self, sequence: SequenceState, new: list[int]) -> int:
        """Append tokens up to one that ends the text; their number. Later ones are padding."""
        ends = set(self._ends.tolist())
        for count, token in enumerate(new, 1):
            sequence.new_tokens.append(token)
            if token in ends or self._stop_sequences.matches(sequence.new_tokens):
                sequence.stopped = True
                return count
        return len(new)

    def text(self, sequence: SequenceState) -> str:
        """The generated text, up to a stop sequence."""
        decoded = self._tokenizer.decode(sequence.new_tokens, skip_special_tokens=True)
        return self._stop_sequences.truncate(decoded)


def _mark(
    sequences: Sequence[SequenceState], choice: TokenChoiceProcessor, *, counts: Sequence[int]
) -> None:
    """Record which sequences have a token in doubt, or none that could be chosen."""
    doubts, not_finite = choice.doubts(), choice.not_finite()
    for index, (sequence, count) in enumerate(zip(sequences, counts, strict=True)):
        sequence.batched |= len(sequences) > 1
        sequence.in_doubt |= sequence.batched and bool(doubts[index, :count].any())
        sequence.not_finite |= bool(not_finite[index, :count].any())


def _has_row_positions(model: Any) -> bool:
    """Whether a token's position counts from the beginning of its row, not of the batch."""
    parameters = inspect.signature(model.forward).parameters
    return "position_ids" in parameters or model.config.model_type in POSITIONS_FROM_MASK


def _steps(sequence: SequenceState, most: int) -> StepRange:
    done = len(sequence.new_tokens)
    return StepRange(sequence.prompt.row, sequence.prompt.sampling, first=done, end=done + most)
