"""Why a text has its label: what each token adds to the label's number.

Integrated gradients (Sundararajan, Taly and Yan, 2017), as captum computes them: along the way from
a text of padding to the text, in the space of token embeddings, the gradients of the label's logit,
or of its cosine, are summed up. A text's weights add up to the difference of the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
import torch

from jobs.errors import ModelFailure
from jobs.kinds import Explain
from workers.inference.batching import memory
from workers.inference.batching.collator import Padder
from workers.inference.batching.tokenization import Reader, Token, Window
from workers.inference.heads.nearest_label import Nearest
from workers.inference.heads.sequence_head import Head
from workers.inference.kernels import unpadding

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Attribution:
    """A token and its weight: above 0 it speaks for the label."""

    token: str
    start: int | None
    end: int | None
    weight: float

    def fields(self) -> dict[str, Any]:
        """As in ``jobs.results.schemas.EXPLANATION``."""
        return {"token": self.token, "start": self.start, "end": self.end, "weight": self.weight}


class Explainer:
    """Explains a model's labels, one text at a time. For one thread at a time.

    ``budget`` is how many tokens go through the device at once.
    """

    def __init__(
        self,
        family: Head | Nearest,
        *,
        reader: Reader,
        padder: Padder,
        asked: Explain,
        budget: int,
    ) -> None:
        self._family = family
        self._reader = reader
        self._padder = padder
        self._asked = asked
        self._rows = frozenset(asked.rows)
        self._budget = budget
        self._baseline = padder.tokens.neutral
        self._names: Sequence[str] = ()
        try:
            from captum.attr import LayerIntegratedGradients  # noqa: PLC0415 - of the extra `explain`
        except ImportError as error:
            raise ModelFailure(
                "explain needs captum on the worker: install nightshift[explain]",
                code="explain_unavailable",
            ) from error
        self._method: Any = LayerIntegratedGradients(
            self._numbers, family.model.get_input_embeddings()
        )

    def chooses(self, row: int, *, score: float) -> bool:
        """Whether this row, whose best label has this score, is to be explained."""
        asked = self._asked
        return (
            row in self._rows
            or (asked.every is not None and row % asked.every == 0)
            or (asked.below is not None and score < asked.below)
        )

    def explain(self, text: str, *, label: int) -> tuple[Attribution, ...] | None:
        """A weight for every token; ``None`` where the device's memory cannot hold one step."""
        tokens = self._reader.tokens(text)
        at_once = max(1, self._budget // len(tokens))
        while True:
            try:
                weights = self._weights(tokens, label=label, at_once=at_once)
            except Exception as error:
                if not memory.is_out_of_memory(error):
                    raise
            else:
                return tuple(_attributions(text, tokens, weights))
            memory.give_back()
            if at_once == 1:
                log.warning("a label is not explained: no memory is left", tokens=len(tokens))
                return None
            at_once //= 2

    def _weights(self, tokens: list[Token], *, label: int, at_once: int) -> list[float]:
        window = Window(ids=[each.id for each in tokens], types=[each.type for each in tokens])
        inputs = self._padder.padded([window])
        ids = inputs.pop("input_ids")
        special = torch.tensor([[each.place is None for each in tokens]], device=ids.device)
        self._names = list(inputs)
        # cuDNN's recurrent layers have no gradients outside of training; PyTorch's own have.
        cudnn = torch.backends.cudnn.flags(enabled=False)
        with unpadding.unpacked(self._family.model), torch.enable_grad(), cudnn:
            found = self._method.attribute(
                ids,
                baselines=torch.where(special, ids, self._baseline),
                target=label,
                additional_forward_args=tuple(inputs.values()),
                n_steps=self._asked.steps,
                internal_batch_size=at_once,
            )
        weights: list[float] = found[0].sum(dim=-1).float().tolist()
        return weights

    def _numbers(self, ids: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        given = dict(zip(self._names, others, strict=True))
        return self._family.measure({"input_ids": ids, **given}).float()


def _attributions(text: str, tokens: list[Token], weights: list[float]) -> Iterator[Attribution]:
    for token, weight in zip(tokens, weights, strict=True):
        if token.place is None:
            yield Attribution(token.name, None, None, weight)
        else:
            start, end = token.place
            yield Attribution(text[start:end].replace("\0", "\ufffd"), start, end, weight)
