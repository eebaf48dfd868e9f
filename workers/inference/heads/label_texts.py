"""Refuses label texts that a model cannot distinguish, before the first row (promise P6).

Two labels with the same tokens, or with the same embedding, are one label to the model: the first
would win every row of the second, and no score would show it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from transformers import PreTrainedTokenizerBase

from jobs.errors import ModelFailure
from workers.inference.batching.tokenization import (
    HypothesisTokenizer,
    TokenWindow,
    WindowTokenizer,
)

CODE = "labels_indistinguishable"
_TOKENS, _LETTERS = 12, 60
"""The part of a label that a message shows."""


def windows(
    labels: Sequence[str],
    window_tokenizer: WindowTokenizer | HypothesisTokenizer,
    *,
    tokenizer: PreTrainedTokenizerBase,
) -> list[TokenWindow]:
    """The window of each label's text; none for labels that are part of a hypothesis.

    Raises ``ModelFailure``: label_without_tokens, labels_indistinguishable.
    """
    if isinstance(window_tokenizer, HypothesisTokenizer):
        check_tokens(labels, window_tokenizer.hypothesis_ids, tokenizer=tokenizer)
        return []
    first_windows = []
    for label, tokenized in zip(labels, window_tokenizer.tokenize(labels), strict=True):
        if not tokenized.windows:
            raise ModelFailure(
                f"the model's tokenizer makes no token of the label {label!r}",
                code="label_without_tokens",
            )
        first_windows.append(tokenized.windows[0])
    check_tokens(labels, [each.ids for each in first_windows], tokenizer=tokenizer)
    return first_windows


def check_tokens(
    labels: Sequence[str], ids: Sequence[Sequence[int]], *, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Raise ``ModelFailure`` where two labels, or their hypotheses, have the same tokens."""
    groups = _alike([tuple(each) for each in ids])
    if not groups:
        return
    same = list(ids[groups[0][0]])
    names = " ".join(map(str, tokenizer.convert_ids_to_tokens(same[:_TOKENS])))
    more = " …" if len(same) > _TOKENS else ""
    raise _failure(
        labels,
        groups,
        f"become the same tokens, {names}{more}",
        "write labels that differ for this tokenizer, or choose a model that knows their script",
    )


def check_embeddings(labels: Sequence[str], embeddings: torch.Tensor, *, tie: float) -> None:
    """Raise ``ModelFailure`` where two embeddings (labels, width), of length one, nearly coincide.

    They do at a distance of at most ``tie``: no row's cosines with the two labels differ by more.
    """
    exact = embeddings.double()
    distances = torch.cdist(exact, exact, compute_mode="donot_use_mm_for_euclid_dist")
    same = (distances <= tie).fill_diagonal_(fill_value=True)  # also where one is not finite
    if groups := _alike(same.int().argmax(dim=1).tolist()):
        raise _failure(
            labels,
            groups,
            "have the same embedding",
            "write labels that differ more, or choose another model",
        )


def _alike(keys: Sequence[Hashable]) -> list[list[int]]:
    """Groups of indices with equal keys, for every key that occurs more than once."""
    indices: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        indices.setdefault(key, []).append(index)
    return [each for each in indices.values() if len(each) > 1]


def _failure(
    labels: Sequence[str], groups: list[list[int]], what: str, advice: str
) -> ModelFailure:
    first, second = (labels[index] for index in groups[0][:2])
    pair = f"the labels {_short(first)} and {_short(second)}"
    return ModelFailure(
        f"the model cannot tell {pair} apart: they {what}{_counted(labels, groups)}; {advice}",
        code=CODE,
    )


def _counted(labels: Sequence[str], groups: list[list[int]]) -> str:
    """How many labels equal another, where there are more than the two that are named."""
    alike = sum(map(len, groups))
    if alike == 2:  # noqa: PLR2004 - the pair
        return ""
    kinds = "all alike" if len(groups) == 1 else f"in {len(groups)} groups"
    return f" (of {len(labels)} labels {alike} are like another, {kinds})"


def _short(label: str) -> str:
    return repr(label if len(label) <= _LETTERS else f"{label[: _LETTERS - 1]}…")
