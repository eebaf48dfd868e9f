"""The training objective of a task.

Losses are sums, one per row, and each row has a weight. The loss of a step is the sum of its losses
over the sum of its weights: a mean over all rows (classify) or over all target tokens (generate,
text2text), for any number of devices and batches that share the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from jobs.errors import ModelFailure
from jobs.kinds import Task
from jobs.models.signatures import Signature
from workers.inference.batching.forward import RowError
from workers.training import conversations
from workers.training.conversations import ChatEncoder
from workers.training.objectives.batch import Batch, TrainingCollator
from workers.training.objectives.classification import Classification
from workers.training.objectives.language_model import CausalLM, Seq2SeqLM
from workers.training.objectives.tokenization import TruncatingTokenizer
from workers.training.tokenized_dataset import Row, TokenizedSplit


class Objective(Protocol):
    """What training and evaluation ask of a task."""

    task: Task

    def encode(
        self, texts: Sequence[str], targets: Sequence[str | None]
    ) -> Sequence[Row | RowError]:
        """Token ids of rows and of their targets, or an error for a row that has none."""

    def balance(self, split: TokenizedSplit) -> None:
        """Give rows of rare labels a larger weight, by the label counts of these rows."""

    def lengths(self, split: TokenizedSplit) -> npt.NDArray[np.int32]:
        """Tokens that each row takes of a token budget."""

    def weights(self, split: TokenizedSplit) -> npt.NDArray[np.float32]:
        """Each row's part in the sum by which a step's loss is divided."""

    def together(self, split: TokenizedSplit, rows: Sequence[int]) -> list[list[int]]:
        """The rows in groups that one forward pass can take; usually one group."""

    def batch(self, split: TokenizedSplit, rows: Sequence[int]) -> Batch:
        """Tensors of these rows."""

    def losses(self, logits: torch.Tensor, batch: Batch, *, weighted: bool) -> torch.Tensor:
        """The sum of losses of each row."""


def objective_for(
    signature: Signature,
    *,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    labels: Sequence[str],
    max_tokens: int,
) -> Objective:
    """The objective of the signature's task, for this model."""
    truncating_tokenizer = TruncatingTokenizer(tokenizer, max_tokens=max_tokens)
    collator = TrainingCollator(tokenizer, model=model)
    if signature.task is Task.CLASSIFY:
        return Classification(
            truncating_tokenizer,
            collator,
            labels=labels,
            multi_label=signature.multi_label,
            counted_id=_counted_id(model),
        )
    if signature.task is Task.TEXT2TEXT:
        return Seq2SeqLM(truncating_tokenizer, collator, model=model, prompt=signature.prompt)
    chat = ChatEncoder(tokenizer, system=signature.system) if signature.chat else None
    if chat is not None:
        conversations.stop_at(model, chat.end_id)
    return CausalLM(truncating_tokenizer, collator, end_id=_end_id(tokenizer), chat=chat)


def _counted_id(model: PreTrainedModel) -> int | None:
    """The token id that all rows of a batch must contain equally often.

    A classifier with encoder and decoder (BART, T5) reads the state of the last end token, and
    finds it by counting the end tokens of all rows at once.
    """
    if not model.config.is_encoder_decoder:
        return None
    end_id = getattr(model.config, "eos_token_id", None)
    return end_id if isinstance(end_id, int) else None


def _end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    if tokenizer.eos_token_id is None:
        raise ModelFailure(
            "the base's tokenizer must have an end-of-text token (eos_token), and has none",
            code="model_no_tokenizer",
        )
    return int(tokenizer.eos_token_id)
