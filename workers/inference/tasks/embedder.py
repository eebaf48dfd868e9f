"""Embeddings: one vector for each text, as the model's own files say it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.errors import ModelFailure
from jobs.kinds import EmbedOptions
from jobs.models import compatibility
from jobs.models.inspection import ModelFacts
from jobs.settings import Settings
from workers.inference import model_loader
from workers.inference.batching.chunk_pass import Sweep
from workers.inference.batching.collator import Padder
from workers.inference.batching.forward import NOT_FINITE, Beat, Meter, Row, RowError
from workers.inference.batching.tokenization import Reader, Window
from workers.inference.heads import pooling
from workers.inference.heads.pooling import Encoder
from workers.inference.probes import forward_probe, preflight
from workers.inference.probes.batch_sharing import Verdict


@dataclass(frozen=True, slots=True, eq=False)  # arrays are not simply equal
class Embedding:
    """A row's vector."""

    vector: npt.NDArray[np.float32]
    tokens: int  # that the model read, the prompt's and special ones included
    truncated: bool  # the text went on after them
    unknown: int = 0  # tokens of those that the tokenizer does not know

    def columns(self) -> dict[str, Any]:
        """As in ``jobs.results.schemas.embed_schema``."""
        return {"embedding": self.vector, "tokens": self.tokens, "truncated": self.truncated}


@dataclass(frozen=True, slots=True)
class Shape:
    """What becomes of a pooled vector."""

    width: int  # numbers that are kept, from the first on
    normalize: bool  # to length one, after that
    prompt: str  # before every text


class Embedder:
    """A loaded model that embeds. For one thread at a time."""

    def __init__(self, sweep: Sweep, *, shape: Shape, digest: str, sharing: Verdict) -> None:
        self.digest = digest
        self.sharing = sharing
        self._sweep = sweep
        self._shape = shape

    def answer(self, texts: Mapping[int, str], *, beat: Beat) -> dict[int, Embedding | RowError]:
        """A vector for every row; equal texts have the same one.

        In float32 it does not depend on the other rows by more than 1e-5 of its length.
        """
        places = {text: place for place, text in enumerate(dict.fromkeys(texts.values()))}
        found: dict[int, Embedding | RowError] = {}
        whole = [self._shape.prompt + text for text in places]
        for group in self._sweep.groups(whole, beat=beat):  # rows are larger than embeddings
            found |= {place: self._embedding(row) for place, row in group.items()}
        return {row: found[places[text]] for row, text in texts.items()}

    def _embedding(self, row: Row) -> Embedding | RowError:
        if row.error is not None:
            return row.error
        vector = row.raw.mean(axis=0)[: self._shape.width]  # over the windows of a long text
        if not np.isfinite(vector).all():
            return NOT_FINITE
        if self._shape.normalize:
            vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
        return Embedding(
            vector.astype(np.float32),
            tokens=row.reading.tokens,
            truncated=row.reading.truncated,
            unknown=row.reading.unknown,
        )


def load(folder: Path, options: EmbedOptions, *, facts: ModelFacts, settings: Settings) -> Embedder:
    """The folder's encoder on this process's device. Raises ``ModelFailure``."""
    tokenizer = model_loader.tokenizer(folder)
    found = pooling.load(
        folder, pooling=options.pooling, facts=facts, options=options, settings=settings
    )
    preflight.check_vocabulary(found.model, tokenizer)
    padder = Padder(found.model, tokenizer=tokenizer)
    prompt = compatibility.prompt(facts, options)
    reader = Reader(
        tokenizer, max_tokens=facts.max_tokens, options=options, prompt=prompt, lower=facts.lowers
    )
    sharing = forward_probe.share(
        found,
        padder=padder,
        reader=reader,
        tokenizer=tokenizer,
        settings=settings,
        digest=facts.digest,
        kind=f"embed {found.pooling}",
    )
    width = _width(found, padder=padder, facts=facts)
    preflight.check_measuring(
        found, tokenizer=tokenizer, reader=reader, padder=padder, numbers=width
    )
    budget = model_loader.calibrated(settings, model=found.model, digest=facts.digest, kind="embed")
    meter = Meter(found, padder=padder, budget=budget)
    normalize = "Normalize" in facts.modules if options.normalize is None else options.normalize
    return Embedder(
        Sweep(meter, reader=reader, numbers=width),
        shape=Shape(width=compatibility.width(facts, options), normalize=normalize, prompt=prompt),
        digest=facts.digest,
        sharing=sharing,
    )


def _width(encoder: Encoder, *, padder: Padder, facts: ModelFacts) -> int:
    """Numbers that the model makes, which must be as many as the job was planned with."""
    width = encoder.width(padder.inputs([Window(ids=[0, 0], types=[0, 0])]))
    if width != facts.width:
        raise ModelFailure(
            f"the model's vectors have {width} numbers, and its config.json says {facts.width}",
            code="model_unsupported",
        )
    return width
