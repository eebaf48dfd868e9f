"""Embeddings: one vector for each text, pooled as the model's own files say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.errors import ModelFailure
from jobs.kinds import EmbedOptions
from jobs.models.inspection import ModelFacts
from jobs.progress import Beat
from jobs.settings import Settings
from workers.inference import model_loader
from workers.inference.batching.chunk_runner import ChunkRunner
from workers.inference.batching.collator import Collator
from workers.inference.batching.forward import NOT_FINITE, ModelRunner, Row, RowError
from workers.inference.batching.tokenization import TokenWindow, WindowTokenizer
from workers.inference.heads import pooling
from workers.inference.heads.pooling import PooledEncoder
from workers.inference.probes import forward_probe, preflight
from workers.inference.probes.batch_policy import BatchPolicy


@dataclass(frozen=True, slots=True, eq=False)  # arrays are not simply equal
class Embedding:
    """A row's vector."""

    vector: npt.NDArray[np.float32]
    tokens: int  # that the model read, the prompt's and special ones included
    truncated: bool  # the text was longer
    unknown: int = 0  # unknown tokens among those

    def columns(self) -> dict[str, Any]:
        """As in ``jobs.kinds.embed``."""
        return {"embedding": self.vector, "tokens": self.tokens, "truncated": self.truncated}


@dataclass(frozen=True, slots=True)
class VectorFormat:
    """How a pooled vector becomes an embedding."""

    width: int  # of the embedding: the vector's first dimensions (Matryoshka)
    normalize: bool  # to length one, after that
    prompt: str  # before every text


class Embedder:
    """A loaded embedding model. For one thread at a time."""

    def __init__(
        self,
        chunk_runner: ChunkRunner,
        *,
        shape: VectorFormat,
        digest: str,
        batch_policy: BatchPolicy,
    ) -> None:
        self.digest = digest
        self.batch_policy = batch_policy
        self._chunk_runner = chunk_runner
        self._shape = shape

    def answer(self, texts: Mapping[int, str], *, beat: Beat) -> dict[int, Embedding | RowError]:
        """A vector for every row; equal texts have the same one.

        In float32 it does not depend on the other rows by more than 1e-5 of its length (promise
        P6).
        """
        indices = {text: index for index, text in enumerate(dict.fromkeys(texts.values()))}
        embeddings: dict[int, Embedding | RowError] = {}
        prompted = [self._shape.prompt + text for text in indices]
        for group in self._chunk_runner.groups(
            prompted, beat=beat
        ):  # rows are larger than embeddings
            embeddings |= {index: self._embedding(row) for index, row in group.items()}
        return {row: embeddings[indices[text]] for row, text in texts.items()}

    def _embedding(self, row: Row) -> Embedding | RowError:
        if row.error is not None:
            return row.error
        vector = row.outputs.mean(axis=0)[: self._shape.width]  # over the windows of a long text
        if not np.isfinite(vector).all():
            return NOT_FINITE
        if self._shape.normalize:
            vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
        return Embedding(
            vector.astype(np.float32),
            tokens=row.tokenized.tokens,
            truncated=row.tokenized.truncated,
            unknown=row.tokenized.unknown,
        )


def load(folder: Path, options: EmbedOptions, *, facts: ModelFacts, settings: Settings) -> Embedder:
    """The folder's encoder on this process's device. Raises ``ModelFailure``."""
    tokenizer = model_loader.tokenizer(folder)
    encoder = pooling.load(
        folder, pooling=options.pooling, facts=facts, options=options, settings=settings
    )
    preflight.check_vocabulary(encoder.model, tokenizer)
    collator = Collator(encoder.model, tokenizer=tokenizer)
    prompt = options.prompt_of(facts)
    window_tokenizer = WindowTokenizer(
        tokenizer,
        max_tokens=facts.max_tokens,
        options=options,
        prompt=prompt,
        lower=facts.lowercases,
    )
    policy = forward_probe.apply_policy(
        encoder,
        collator=collator,
        window_tokenizer=window_tokenizer,
        tokenizer=tokenizer,
        settings=settings,
        digest=facts.digest,
        variant=f"embed {encoder.pooling}",
    )
    width = _checked_width(encoder, collator=collator, facts=facts)
    preflight.check_forward(
        encoder,
        tokenizer=tokenizer,
        window_tokenizer=window_tokenizer,
        collator=collator,
        width=width,
    )
    budget = model_loader.calibrated(
        settings, model=encoder.model, digest=facts.digest, variant="embed"
    )
    runner = ModelRunner(encoder, collator=collator, budget=budget)
    normalize = "Normalize" in facts.modules if options.normalize is None else options.normalize
    return Embedder(
        ChunkRunner(runner, tokenizer=window_tokenizer, width=width),
        shape=VectorFormat(width=options.width(facts), normalize=normalize, prompt=prompt),
        digest=facts.digest,
        batch_policy=policy,
    )


def _checked_width(encoder: PooledEncoder, *, collator: Collator, facts: ModelFacts) -> int:
    """The width of the model's vectors, which must be the one that the job was planned with."""
    width = encoder.width(collator.collate([TokenWindow(ids=[0, 0], type_ids=[0, 0])]))
    if width != facts.width:
        raise ModelFailure(
            f"the model's vectors have {width} numbers, and its config.json says {facts.width}",
            code="model_unsupported",
        )
    return width
