"""Label texts that a model cannot tell apart are refused, before the first row.

Two labels that become the same tokens, or whose embeddings are the same, are one label to the
model: the first would win every row of the second, and no score would show it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from transformers import PreTrainedTokenizerBase

from jobs.errors import ModelFailure

CODE = "labels_indistinguishable"
_TOKENS, _LETTERS = 12, 60
"""Of one label, shown in a message."""


def check_tokens(
    labels: Sequence[str], ids: Sequence[Sequence[int]], *, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Raise ``ModelFailure`` where two labels, or hypotheses with them, are the same tokens."""
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


def check_points(labels: Sequence[str], points: torch.Tensor, *, tie: float) -> None:
    """The same of embeddings (labels, width), of length one, that are nowhere ``tie`` apart.

    No row's cosines with two such labels differ by more than the distance between them.
    """
    exact = points.double()
    apart = torch.cdist(exact, exact, compute_mode="donot_use_mm_for_euclid_dist")
    same = (apart <= tie).fill_diagonal_(fill_value=True)  # also of what is not finite
    if groups := _alike(same.int().argmax(dim=1).tolist()):
        raise _failure(
            labels,
            groups,
            "have the same embedding",
            "write labels that differ more, or choose another model",
        )


def _alike(keys: Sequence[Hashable]) -> list[list[int]]:
    """The places of equal keys, of every key that is there more than once."""
    places: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return [each for each in places.values() if len(each) > 1]


def _failure(
    labels: Sequence[str], groups: list[list[int]], what: str, advice: str
) -> ModelFailure:
    first, second = (labels[place] for place in groups[0][:2])
    pair = f"the labels {_short(first)} and {_short(second)}"
    return ModelFailure(
        f"the model cannot tell {pair} apart: they {what}{_counted(labels, groups)}; {advice}",
        code=CODE,
    )


def _counted(labels: Sequence[str], groups: list[list[int]]) -> str:
    """How many labels are like another, where it is more than the two that are named."""
    alike = sum(map(len, groups))
    if alike == 2:  # noqa: PLR2004 - the pair
        return ""
    kinds = "all alike" if len(groups) == 1 else f"in {len(groups)} groups"
    return f" (of {len(labels)} labels {alike} are like another, {kinds})"


def _short(label: str) -> str:
    return repr(label if len(label) <= _LETTERS else f"{label[: _LETTERS - 1]}…")
