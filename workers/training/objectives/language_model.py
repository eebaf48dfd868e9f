"""The objectives of the tasks generate and text2text: the next token of target texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from transformers import PreTrainedModel

from jobs.corpora.message_lists import CONVERSATION
from jobs.errors import CorpusFailure
from jobs.kinds import Task
from workers.inference.batching.forward import RowError
from workers.training.conversations import ChatEncoder
from workers.training.objectives.batch import Batch, TrainingCollator
from workers.training.objectives.tokenization import TruncatingTokenizer
from workers.training.tokenized_dataset import Row, TokenizedSplit

IGNORED = -100
"""The label of a position whose next token is no target."""


class LanguageModeling:
    """What both objectives share: cross-entropy over the target tokens."""

    def __init__(self, tokenizer: TruncatingTokenizer, collator: TrainingCollator) -> None:
        self._tokenizer = tokenizer
        self._collator = collator

    def balance(self, split: TokenizedSplit) -> None:
        """Raise ``CorpusFailure``: there are no labels to balance."""
        del split
        raise CorpusFailure(
            "class_weights are for the task classify: texts to be written have no labels",
            code="bad_spec",
        )

    def together(self, split: TokenizedSplit, rows: Sequence[int]) -> list[list[int]]:
        """All rows in one group."""
        del split
        return [list(rows)]

    def losses(self, logits: torch.Tensor, batch: Batch, *, weighted: bool) -> torch.Tensor:
        """Cross-entropy, summed over each row's target tokens."""
        del weighted  # all tokens have the same weight
        predictions = logits.flatten(0, 1).index_select(0, batch.positions).float()
        losses = functional.cross_entropy(predictions, batch.targets, reduction="none")
        return losses.new_zeros(len(batch.rows)).index_add(0, batch.owners, losses)

    def _batch(
        self, rows: Sequence[int], inputs: dict[str, torch.Tensor], labels: torch.Tensor
    ) -> Batch:
        """``labels`` (rows, positions): the token that each position predicts, or ``IGNORED``."""
        owners, columns = (labels != IGNORED).nonzero(as_tuple=True)
        positions = owners * labels.shape[1] + columns
        return Batch(list(rows), inputs, labels[owners, columns], positions, owners)


class CausalLM(LanguageModeling):
    """A decoder: every token of a text, the completion of a prompt, or a chat's answers."""

    task = Task.GENERATE

    def __init__(
        self,
        tokenizer: TruncatingTokenizer,
        collator: TrainingCollator,
        *,
        end_id: int,
        chat: ChatEncoder | None = None,
    ) -> None:
        super().__init__(tokenizer, collator)
        self._end_id = end_id
        self._chat = chat

    def encode(
        self, texts: Sequence[str], targets: Sequence[str | None]
    ) -> Sequence[Row | RowError]:
        """Token ids, and the start and end of each span of target tokens.

        A row without a target is a plain text. With a chat template any other is a conversation.
        """
        if self._chat is None:
            return self._encode_plain(texts, targets)
        return [
            self._encode_plain([text], [None])[0]
            if target is None
            else self._chat.row(text, target, window=self._tokenizer.max_tokens)
            for text, target in zip(texts, targets, strict=True)
        ]

    def _encode_plain(self, texts: Sequence[str], targets: Sequence[str | None]) -> list[Row]:
        if CONVERSATION in targets:
            raise CorpusFailure(
                "the rows are messages, which need a chat template, and the model is used without "
                "one",
                code="messages_need_chat",
            )
        completions = [target or "" for target in targets]
        prompt_ids = self._tokenizer.encode_whole(texts, special=True)
        completion_ids = self._tokenizer.encode_whole(completions, special=False)
        return [
            self._text(prompt) if target is None else self._prompt_completion(prompt, completion)
            for prompt, completion, target in zip(prompt_ids, completion_ids, targets, strict=True)
        ]

    def _text(self, text: list[int]) -> Row:
        ids = self._ended(text, max_tokens=self._tokenizer.max_tokens)
        return ids, [0, len(ids)]

    def _prompt_completion(self, prompt: list[int], completion: list[int]) -> Row:
        """A pair beyond the window loses the start of its prompt."""
        completion = self._ended(completion, max_tokens=self._tokenizer.max_tokens - 1)
        kept = prompt[-(self._tokenizer.max_tokens - len(completion)) :]
        return kept + completion, [len(kept), len(kept) + len(completion)]

    def _ended(self, ids: list[int], *, max_tokens: int) -> list[int]:
        """With the end token, unless the text is truncated."""
        ended = ids if ids and ids[-1] == self._end_id else [*ids, self._end_id]
        return ended[:max_tokens]

    def lengths(self, split: TokenizedSplit) -> npt.NDArray[np.int32]:
        """Tokens of prompt and completion."""
        return split.inputs.lengths

    def weights(self, split: TokenizedSplit) -> npt.NDArray[np.float32]:
        """Target tokens; the first token of a text is never predicted."""
        edges = np.maximum(split.targets.values, 1).reshape(-1, 2)
        sums = np.concatenate([[0], np.cumsum(edges[:, 1] - edges[:, 0])])
        ends = split.targets.offsets // 2  # in spans
        return np.asarray(sums[ends[1:]] - sums[ends[:-1]], dtype=np.float32)

    def batch(self, split: TokenizedSplit, rows: Sequence[int]) -> Batch:
        """Texts, and the next token at each position that predicts a target token."""
        inputs = self._collator.inputs([split.inputs[row] for row in rows])
        labels = [self._labels(split, row) for row in rows]
        return self._batch(rows, inputs, self._collator.padded(labels, fill=IGNORED))

    def _labels(self, split: TokenizedSplit, row: int) -> npt.NDArray[Any]:
        ids = split.inputs[row]
        labels = np.full(len(ids), IGNORED, dtype=np.int64)
        for start, end in split.targets[row].reshape(-1, 2):
            labels[max(start - 1, 0) : max(end - 1, 0)] = ids[max(start, 1) : end]
        return labels


class Seq2SeqLM(LanguageModeling):
    """An encoder that reads a text and a decoder that generates the target text."""

    task = Task.TEXT2TEXT

    def __init__(
        self,
        tokenizer: TruncatingTokenizer,
        collator: TrainingCollator,
        *,
        model: PreTrainedModel,
        prompt: str = "",
    ) -> None:
        super().__init__(tokenizer, collator)
        self._prompt = prompt
        self._shift_right = getattr(model, "prepare_decoder_input_ids_from_labels", None)

    def encode(self, texts: Sequence[str], targets: Sequence[str | None]) -> list[Row]:
        """Token ids of the text, with its prompt, and of the target text."""
        target_ids = self._tokenizer.encode_targets([target or "" for target in targets])
        text_ids = self._tokenizer.encode([self._prompt + text for text in texts])
        return list(zip(text_ids, target_ids, strict=True))

    def lengths(self, split: TokenizedSplit) -> npt.NDArray[np.int32]:
        """Tokens of the text and of the target."""
        return split.inputs.lengths + split.targets.lengths

    def weights(self, split: TokenizedSplit) -> npt.NDArray[np.float32]:
        """Target tokens."""
        return split.targets.lengths.astype(np.float32)

    def batch(self, split: TokenizedSplit, rows: Sequence[int]) -> Batch:
        """Encoder inputs, decoder inputs, and the token that each decoder position predicts."""
        inputs = self._collator.inputs([split.inputs[row] for row in rows])
        labels = self._collator.padded([split.targets[row] for row in rows], fill=IGNORED)
        if self._shift_right is None:  # a model that only shifts the labels of its own loss
            inputs["labels"] = labels
        else:
            inputs["decoder_input_ids"] = self._shift_right(labels=labels)
        return self._batch(rows, inputs, labels)
