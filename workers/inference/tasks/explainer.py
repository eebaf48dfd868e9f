"""Explanations: how much each token adds to the output of a text's label.

Integrated gradients (Sundararajan, Taly and Yan, 2017), as captum computes them: along the line
from a baseline of padding tokens to the text, in the space of token embeddings, the gradients of
the label's logit, or of its cosine, are summed. A text's weights add up to the difference of the
output at both ends (decision 0012).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
import torch

from jobs import distribution
from jobs.errors import ModelFailure
from jobs.kinds import Explain
from jobs.row_codes import RowCode
from workers.inference import row_isolation
from workers.inference.batching import memory
from workers.inference.batching.collator import Collator
from workers.inference.batching.forward import RowError
from workers.inference.batching.tokenization import Token, TokenWindow, WindowTokenizer
from workers.inference.heads.nearest_label import NearestLabelHead
from workers.inference.heads.sequence_head import SequenceHead
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

    ``budget`` is the number of tokens in a batch.
    """

    def __init__(
        self,
        head: SequenceHead | NearestLabelHead,
        *,
        window_tokenizer: WindowTokenizer,
        collator: Collator,
        options: Explain,
        budget: int,
    ) -> None:
        self._head = head
        self._window_tokenizer = window_tokenizer
        self._collator = collator
        self._options = options
        self._rows = frozenset(options.rows)
        self._budget = budget
        self._baseline = collator.tokens.neutral
        self._names: Sequence[str] = ()
        self._tally = row_isolation.FaultTally("the model, when it is explained,")
        try:
            from captum.attr import LayerIntegratedGradients  # noqa: PLC0415 - of the extra `explain`
        except ImportError as error:
            raise ModelFailure(
                f"explain needs captum on the worker: {distribution.with_extra('explain')}",
                code="explain_unavailable",
            ) from error
        self._method: Any = LayerIntegratedGradients(
            self._outputs, head.model.get_input_embeddings()
        )

    def selects(self, row: int, *, score: float) -> bool:
        """Whether the options select this row, whose best label has this score."""
        options = self._options
        return (
            row in self._rows
            or (options.every is not None and row % options.every == 0)
            or (options.below is not None and score < options.below)
        )

    def try_explain(self, text: str, *, label: int) -> tuple[Attribution, ...] | RowError | None:
        """``explain``, or the error of a row for which the model raises (promise P4)."""
        try:
            explanation = self.explain(text, label=label)
        except BaseException as error:  # noqa: BLE001 - what is no row's fault is raised by check
            row_isolation.check(error)
            return RowError(RowCode.ROW_FAILED, self._tally.raised(row_isolation.reason(error)))
        self._tally.succeeded(1)
        return explanation

    def explain(self, text: str, *, label: int) -> tuple[Attribution, ...] | None:
        """A weight for every token; ``None`` where the device's memory cannot hold one step."""
        tokens = self._window_tokenizer.first_window(text)
        batch_size = max(1, self._budget // len(tokens))
        while True:
            try:
                weights = self._weights(tokens, label=label, batch_size=batch_size)
            except Exception as error:
                if not memory.is_out_of_memory(error):
                    raise
            else:
                return tuple(_attributions(text, tokens, weights))
            memory.empty_cache()
            if batch_size == 1:
                log.warning("a label is not explained: no memory is left", tokens=len(tokens))
                return None
            batch_size //= 2

    def _weights(self, tokens: list[Token], *, label: int, batch_size: int) -> list[float]:
        window = TokenWindow(
            ids=[each.id for each in tokens], type_ids=[each.type_id for each in tokens]
        )
        inputs = self._collator.padded([window])
        ids = inputs.pop("input_ids")
        special = torch.tensor([[each.span is None for each in tokens]], device=ids.device)
        self._names = list(inputs)
        # cuDNN's recurrent layers have gradients in training mode only; PyTorch's own always.
        no_cudnn = torch.backends.cudnn.flags(enabled=False)
        with unpadding.suspended(self._head.model), torch.enable_grad(), no_cudnn:
            attributions = self._method.attribute(
                ids,
                baselines=torch.where(special, ids, self._baseline),
                target=label,
                additional_forward_args=tuple(inputs.values()),
                n_steps=self._options.steps,
                internal_batch_size=batch_size,
            )
        weights: list[float] = attributions[0].sum(dim=-1).float().tolist()
        return weights

    def _outputs(self, ids: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        inputs = dict(zip(self._names, others, strict=True))
        return self._head.forward({"input_ids": ids, **inputs}).float()


def _attributions(text: str, tokens: list[Token], weights: list[float]) -> Iterator[Attribution]:
    for token, weight in zip(tokens, weights, strict=True):
        if token.span is None:
            yield Attribution(token.text, None, None, weight)
        else:
            start, end = token.span
            yield Attribution(text[start:end].replace("\0", "\ufffd"), start, end, weight)
