"""What differs between tasks: how a row becomes tokens, a batch becomes tensors, logits a loss.

Losses are sums, one per row, and each row has a weight: the loss of a step is the sum of its losses
over the sum of its weights, a mean over all rows (classify) or all tokens to be written (generate,
text2text), however many devices and batches the step is shared over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from jobs.corpora.messages import CONVERSATION
from jobs.errors import CorpusFailure, ModelFailure
from jobs.kinds import Task
from jobs.models.signatures import Signature
from workers.inference import special_tokens
from workers.inference.batching.forward import RowError
from workers.inference.special_tokens import SpecialTokens
from workers.training import conversations
from workers.training.conversations import Conversations
from workers.training.tokenized_dataset import Row, Tokens

Floats = npt.NDArray[np.float32]
Lengths = npt.NDArray[np.int32]
IGNORED = -100
"""In labels: no token is to be predicted here."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that go through a device together. Tensors are on the host until ``to``."""

    rows: list[int]
    inputs: dict[str, torch.Tensor]  # the model's own arguments
    answers: torch.Tensor  # label ids (rows,), flags (rows, labels), or token ids (tokens,)
    places: torch.Tensor  # of those tokens: which of the flattened logits says them
    owners: torch.Tensor  # and which row of the batch they belong to

    def to(self, device: torch.device) -> Batch:
        """The same on the device; does not wait where memory is pinned."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """The same in memory that a GPU copies by itself."""
        return self._each(torch.Tensor.pin_memory)

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        inputs = {name: change(tensor) for name, tensor in self.inputs.items()}
        return Batch(
            self.rows, inputs, change(self.answers), change(self.places), change(self.owners)
        )


class Family(Protocol):
    """A task's ways."""

    task: Task

    def encode(
        self, texts: Sequence[str], targets: Sequence[str | None]
    ) -> Sequence[Row | RowError]:
        """Token ids of rows and of their answers, or why there are none."""

    def balance(self, tokens: Tokens) -> None:
        """Let rows of rare labels weigh more, by these rows' counts."""

    def lengths(self, tokens: Tokens) -> Lengths:
        """How many tokens of a budget each row takes."""

    def weights(self, tokens: Tokens) -> Floats:
        """Each row's part in the sum that a step's loss is divided by."""

    def together(self, tokens: Tokens, rows: Sequence[int]) -> list[list[int]]:
        """The rows in groups that the model can compute at once; mostly one."""

    def batch(self, tokens: Tokens, rows: Sequence[int]) -> Batch:
        """Tensors of these rows."""

    def losses(self, logits: torch.Tensor, batch: Batch, *, weighted: bool) -> torch.Tensor:
        """The sum of losses of each row."""


def of(
    signature: Signature,
    *,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    labels: Sequence[str],
    max_tokens: int,
) -> Family:
    """The family of the signature's task, for this model."""
    reader = Reader(tokenizer, max_tokens=max_tokens)
    padder = Padder(tokenizer, model=model)
    if signature.task is Task.CLASSIFY:
        return Classify(
            reader,
            padder,
            labels=labels,
            multi_label=signature.multi_label,
            counted=_counted(model),
        )
    if signature.task is Task.TEXT2TEXT:
        return Text2Text(reader, padder, model=model, prompt=signature.prompt)
    chats = Conversations(tokenizer, system=signature.system) if signature.chat else None
    if chats is not None:
        conversations.stop_at(model, chats.ending)
    return Generate(reader, padder, ending=_ending(tokenizer), chats=chats)


def _counted(model: PreTrainedModel) -> int | None:
    """The id that all rows of a batch must have equally often.

    A classifier with encoder and decoder (BART, T5) reads the state of the last end token, and
    finds it by counting them in all rows at once.
    """
    if not model.config.is_encoder_decoder:
        return None
    ending = getattr(model.config, "eos_token_id", None)
    return ending if isinstance(ending, int) else None


def _ending(tokenizer: PreTrainedTokenizerBase) -> int:
    if tokenizer.eos_token_id is None:
        raise ModelFailure(
            "the base's tokenizer must have an end-of-text token (eos_token), and has none",
            code="model_no_tokenizer",
        )
    return int(tokenizer.eos_token_id)


class Reader:
    """The tokenizer, with texts cut at the window."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, max_tokens: int) -> None:
        self._tokenizer: Any = tokenizer
        self.max_tokens = max_tokens
        # A text that makes no token at all still needs one to be a row.
        self._nothing = [tokenizer.unk_token_id or tokenizer.eos_token_id or 0]

    def read(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, one at least."""
        bound = {"truncation": True, "max_length": self.max_tokens}
        return [row or self._nothing for row in self._encoded(list(texts), **bound)]

    def read_targets(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts to be written, as the tokenizer has them for a decoder."""
        bound = {"truncation": True, "max_length": self.max_tokens}
        ids = self._encoded(None, text_target=list(texts), **bound)
        return [row or self._nothing for row in ids]

    def read_whole(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        """Token ids of each text, however many."""
        return self._encoded(list(texts), add_special_tokens=special)

    def _encoded(self, texts: list[str] | None, **options: Any) -> list[list[int]]:
        found = self._tokenizer(
            texts,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
            **options,
        )
        return list(found["input_ids"])


class Padder:
    """Rows of token ids become a tensor, filled up; the mask says where."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, model: PreTrainedModel) -> None:
        config: Any = model.config
        self.pad = SpecialTokens.of(model, tokenizer).padding
        # Decoders with a classification head find a row's end by this id, now and later.
        special_tokens.text_config(config).pad_token_id = self.pad
        # A head that reads the last token must find the text's there (XLNet).
        self._left = getattr(config, "summary_type", None) == "last"

    def inputs(self, rows: Sequence[npt.NDArray[Any]]) -> dict[str, torch.Tensor]:
        """Token ids and mask."""
        ids = self.filled(rows, with_=self.pad)
        mask = self.filled([np.ones_like(row) for row in rows], with_=0)
        return {"input_ids": ids, "attention_mask": mask}

    def filled(self, rows: Sequence[npt.NDArray[Any]], *, with_: int) -> torch.Tensor:
        """One row a line, as long as the longest."""
        longest = max(len(row) for row in rows)
        table = np.full((len(rows), longest), with_, dtype=np.int64)
        for place, row in enumerate(rows):
            start = longest - len(row) if self._left else 0
            table[place, start : start + len(row)] = row
        return torch.from_numpy(table)


class Classify:
    """A label of each row, or any number of them: cross-entropy, or one sigmoid a label."""

    task = Task.CLASSIFY

    def __init__(
        self,
        reader: Reader,
        padder: Padder,
        *,
        labels: Sequence[str],
        multi_label: bool,
        counted: int | None = None,
    ) -> None:
        self._reader = reader
        self._counted = counted
        self._padder = padder
        self._ids = {label: place for place, label in enumerate(labels)}
        self.labels = tuple(labels)
        self.multi_label = multi_label
        self._balance: torch.Tensor | None = None

    def encode(self, texts: Sequence[str], targets: Sequence[str | None]) -> list[Row]:
        """The tokens, and the ids of the labels."""
        answers = [self._answer(target) for target in targets]
        return list(zip(self._reader.read(texts), answers, strict=True))

    def _answer(self, target: str | None) -> list[int]:
        names: list[Any] = json.loads(target or "[]") if self.multi_label else [target]
        try:
            return sorted({self._ids[name] for name in names})
        except KeyError as unknown:
            raise CorpusFailure(
                f"a label must be one that the training rows have, and is {unknown.args[0]!r}",
                code="unknown_label",
            ) from None

    def balance(self, tokens: Tokens) -> None:
        """Rows over (labels times the label's rows); of multi-label, negatives over positives."""
        counts = np.bincount(tokens.targets.values, minlength=len(self.labels))
        seen = np.maximum(counts, 1)
        rows = len(tokens)
        weights = (rows - counts) / seen if self.multi_label else rows / (len(counts) * seen)
        self._balance = torch.tensor(weights, dtype=torch.float32)

    def lengths(self, tokens: Tokens) -> Lengths:
        """Tokens that are read."""
        return tokens.inputs.lengths

    def weights(self, tokens: Tokens) -> Floats:
        """One, or the weight of the row's label."""
        if self._balance is None or self.multi_label:
            return np.ones(len(tokens), dtype=np.float32)
        return self._balance.numpy()[tokens.targets.values]

    def together(self, tokens: Tokens, rows: Sequence[int]) -> list[list[int]]:
        """Rows apart that have another number of end tokens. Raises ``CorpusFailure`` for none."""
        if self._counted is None:
            return [list(rows)]
        groups: dict[int, list[int]] = {}
        for row in rows:
            count = int((tokens.inputs[row] == self._counted).sum())
            if count == 0:
                raise CorpusFailure(
                    f"every text must have an end token (id {self._counted}) for this base, which "
                    f"reads its label there, and row {row} has 0 in {len(tokens.inputs[row])} "
                    "tokens: its tokenizer adds none",
                    code="no_end_token",
                )
            groups.setdefault(count, []).append(row)
        return list(groups.values())

    def batch(self, tokens: Tokens, rows: Sequence[int]) -> Batch:
        """Texts, and what is true of them."""
        inputs = self._padder.inputs([tokens.inputs[row] for row in rows])
        answers = torch.from_numpy(self.truth(tokens, rows))
        nothing = torch.zeros(0, dtype=torch.int64)
        return Batch(list(rows), inputs, answers, nothing, nothing)

    def truth(self, tokens: Tokens, rows: Sequence[int]) -> npt.NDArray[Any]:
        """Label ids (rows,), or flags (rows, labels)."""
        if not self.multi_label:
            return np.array([tokens.targets[row][0] for row in rows], dtype=np.int64)
        flags = np.zeros((len(rows), len(self.labels)), dtype=bool)
        for place, row in enumerate(rows):
            flags[place, tokens.targets[row]] = True
        return flags

    def losses(self, logits: torch.Tensor, batch: Batch, *, weighted: bool) -> torch.Tensor:
        """Cross-entropy; of multi-label, the mean over the labels of their binary ones."""
        balance = self._balance_on(logits.device) if weighted else None
        logits = logits.float()
        if self.multi_label:
            flags = batch.answers.to(logits.dtype)
            losses = functional.binary_cross_entropy_with_logits(
                logits, flags, pos_weight=balance, reduction="none"
            )
            return losses.mean(dim=1)
        return functional.cross_entropy(logits, batch.answers, weight=balance, reduction="none")

    def _balance_on(self, device: torch.device) -> torch.Tensor | None:
        if self._balance is not None and self._balance.device != device:
            self._balance = self._balance.to(device)
        return self._balance


class _Writing:
    """What models that write have in common: a loss per token."""

    def __init__(self, reader: Reader, padder: Padder) -> None:
        self._reader = reader
        self._padder = padder

    def balance(self, tokens: Tokens) -> None:
        """There are no labels to balance: raises ``CorpusFailure``."""
        del tokens
        raise CorpusFailure(
            "class_weights are for the task classify: texts to be written have no labels",
            code="bad_spec",
        )

    def together(self, tokens: Tokens, rows: Sequence[int]) -> list[list[int]]:
        """All of them."""
        del tokens
        return [list(rows)]

    def losses(self, logits: torch.Tensor, batch: Batch, *, weighted: bool) -> torch.Tensor:
        """Cross-entropy, summed over the tokens that are to be written."""
        del weighted  # tokens weigh alike
        chosen = logits.flatten(0, 1).index_select(0, batch.places).float()
        losses = functional.cross_entropy(chosen, batch.answers, reduction="none")
        return losses.new_zeros(len(batch.rows)).index_add(0, batch.owners, losses)

    def _batch(
        self, rows: Sequence[int], inputs: dict[str, torch.Tensor], said: torch.Tensor
    ) -> Batch:
        """``said`` (rows, positions): the token that each position's logits should say."""
        owners, columns = (said != IGNORED).nonzero(as_tuple=True)
        places = owners * said.shape[1] + columns
        return Batch(list(rows), inputs, said[owners, columns], places, owners)


class Generate(_Writing):
    """A causal language model: every token of a text, or of the completion of a prompt."""

    task = Task.GENERATE

    def __init__(
        self, reader: Reader, padder: Padder, *, ending: int, chats: Conversations | None = None
    ) -> None:
        super().__init__(reader, padder)
        self._ending = ending
        self._chats = chats

    def encode(
        self, texts: Sequence[str], targets: Sequence[str | None]
    ) -> Sequence[Row | RowError]:
        """The tokens, and the beginnings and ends of what is to be written, in turn.

        A row without a target is a plain text. With a chat template, any other is a conversation.
        """
        if self._chats is None:
            return self._plain(texts, targets)
        return [
            self._plain([text], [None])[0]
            if target is None
            else self._chats.row(text, target, window=self._reader.max_tokens)
            for text, target in zip(texts, targets, strict=True)
        ]

    def _plain(self, texts: Sequence[str], targets: Sequence[str | None]) -> list[Row]:
        if CONVERSATION in targets:
            raise CorpusFailure(
                "the rows are messages, which need a chat template, and the model is used without "
                "one",
                code="messages_need_chat",
            )
        prompts = self._reader.read_whole(texts, special=True)
        completions = self._reader.read_whole([each or "" for each in targets], special=False)
        rows = zip(prompts, completions, targets, strict=True)
        return [
            self._whole(prompt) if target is None else self._pair(prompt, completion)
            for prompt, completion, target in rows
        ]

    def _whole(self, text: list[int]) -> Row:
        ids = self._ended(text, room=self._reader.max_tokens)
        return ids, [0, len(ids)]

    def _pair(self, prompt: list[int], completion: list[int]) -> Row:
        """Too long a pair loses the beginning of its prompt: its end stands by the completion."""
        written = self._ended(completion, room=self._reader.max_tokens - 1)
        kept = prompt[-(self._reader.max_tokens - len(written)) :]
        return kept + written, [len(kept), len(kept) + len(written)]

    def _ended(self, ids: list[int], *, room: int) -> list[int]:
        """With the end mark, unless the text goes on after the window."""
        ended = ids if ids and ids[-1] == self._ending else [*ids, self._ending]
        return ended[:room]

    def lengths(self, tokens: Tokens) -> Lengths:
        """Tokens of prompt and completion."""
        return tokens.inputs.lengths

    def weights(self, tokens: Tokens) -> Floats:
        """Tokens that are predicted: the first of a text never is."""
        edges = np.maximum(tokens.targets.values, 1).reshape(-1, 2)
        sums = np.concatenate([[0], np.cumsum(edges[:, 1] - edges[:, 0])])
        ends = tokens.targets.offsets // 2  # in spans
        return np.asarray(sums[ends[1:]] - sums[ends[:-1]], dtype=np.float32)

    def batch(self, tokens: Tokens, rows: Sequence[int]) -> Batch:
        """Texts, and the next token at each place that is to be written."""
        texts = [tokens.inputs[row] for row in rows]
        said = [self._said(tokens, row) for row in rows]
        return self._batch(
            rows, self._padder.inputs(texts), self._padder.filled(said, with_=IGNORED)
        )

    def _said(self, tokens: Tokens, row: int) -> npt.NDArray[Any]:
        """The token after each, where that is to be written."""
        ids = tokens.inputs[row]
        said = np.full(len(ids), IGNORED, dtype=np.int64)
        for begin, end in tokens.targets[row].reshape(-1, 2):
            said[max(begin - 1, 0) : max(end - 1, 0)] = ids[max(begin, 1) : end]
        return said


class Text2Text(_Writing):
    """An encoder that reads a text and a decoder that writes another."""

    task = Task.TEXT2TEXT

    def __init__(
        self, reader: Reader, padder: Padder, *, model: PreTrainedModel, prompt: str = ""
    ) -> None:
        super().__init__(reader, padder)
        self._prompt = prompt
        self._shifted = getattr(model, "prepare_decoder_input_ids_from_labels", None)

    def encode(self, texts: Sequence[str], targets: Sequence[str | None]) -> list[Row]:
        """The tokens of the text, and of the text to be written."""
        written = self._reader.read_targets([target or "" for target in targets])
        read = self._reader.read([self._prompt + text for text in texts])
        return list(zip(read, written, strict=True))

    def lengths(self, tokens: Tokens) -> Lengths:
        """Tokens that are read and written."""
        return tokens.inputs.lengths + tokens.targets.lengths

    def weights(self, tokens: Tokens) -> Floats:
        """Tokens to be written."""
        return tokens.targets.lengths.astype(np.float32)

    def batch(self, tokens: Tokens, rows: Sequence[int]) -> Batch:
        """Texts, what the decoder reads, and what it should say there."""
        inputs = self._padder.inputs([tokens.inputs[row] for row in rows])
        said = self._padder.filled([tokens.targets[row] for row in rows], with_=IGNORED)
        if self._shifted is None:  # a model that only shifts labels itself, beside its own loss
            inputs["labels"] = said
        else:
            inputs["decoder_input_ids"] = self._shifted(labels=said)
        return self._batch(rows, inputs, said)
