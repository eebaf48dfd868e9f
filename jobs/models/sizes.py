"""Sizes of a model: numbers of its config beside what its files hold.

A config that disagrees with its weights file by orders of magnitude is refused before anything is
loaded: building millions of layers would not come to its end. Keeps promise P12.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.errors import ModelFailure
from jobs.models import config_files
from jobs.models.config_files import ModelFile

DECODER_TABLES = frozenset(
    {
        "bart",
        "bigbird_pegasus",
        "blenderbot",
        "blenderbot-small",
        "marian",
        "mbart",
        "mvp",
        "pegasus",
        "plbart",
    }
)
"""Model types whose decoder has a table of ``max_position_embeddings`` positions."""

LAYERS = (
    "num_hidden_layers",
    "num_layers",
    "n_layer",
    "n_layers",
    "encoder_layers",
    "decoder_layers",
    "num_decoder_layers",
)
"""What configs call the number of layers."""

MANY_LAYERS = 1_000
"""So many are loaded in seconds. Layers may share their tensors, or a file have more layers."""

LARGE_SIZE = 2_000_000
"""Vocabularies are smaller."""

DIMENSIONS = ("vocab_size", "intermediate_size", "hidden_size", "d_model", "dim", "n_embd")
"""What configs call sizes that are a dimension of some tensor."""


def check(config: ModelFile, *, tensors: Mapping[str, Any]) -> None:
    """Refuse numbers that no loading would come to the end of, before it begins."""
    if "base_model.model" in next(iter(tensors), ""):  # an adapter: its base has the sizes
        return
    for name in LAYERS:
        layers = config.number(name) or 0
        if layers > max(MANY_LAYERS, len(tensors)):
            raise ModelFailure(
                f"{name} in config.json of the model is {layers:,.0f}, and its weights file has "
                f"{len(tensors):,} tensors"
            )
    longest = max((_longest(entry) for entry in tensors.values()), default=0)
    for name in DIMENSIONS:
        size = config.number(name) or 0
        if size > max(LARGE_SIZE, 2 * longest):
            raise ModelFailure(
                f"{name} in config.json of the model is {size:,.0f}, and no dimension of a tensor "
                f"in its weights file is larger than {longest:,}"
            )


def _longest(entry: Any) -> int:
    shape = entry.get("shape") if isinstance(entry, dict) else None
    whole = [size for size in shape if isinstance(size, int)] if isinstance(shape, list) else []
    return max(whole, default=0)


def largest_token(folder: Path) -> int | None:
    """The largest id of a token of texts in a folder's tokenizer.json; ``None``: it names none.

    Special tokens that were added later do not count: a text has them only if it spells them out.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    state = path.stat()
    return _largest_id(path, size=state.st_size, changed=state.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _largest_id(path: Path, *, size: int, changed: int) -> int | None:  # noqa: ARG001 (a key)
    try:
        file = config_files.read(path)
        vocabulary: Any = file.part("model").values.get("vocab")
        added: Any = file.values.get("added_tokens") or []
        known = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        return max(
            (*known, *(each["id"] for each in added if not each.get("special"))), default=None
        )
    except (ModelFailure, TypeError, LookupError):  # loading it says what is wrong
        return None
