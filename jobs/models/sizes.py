"""Sizes in a model's config, compared with its weights and tokenizer files.

A config that disagrees with the weights by orders of magnitude is refused before anything is
loaded: building millions of layers would never finish (promise P12).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.errors import ModelFailure
from jobs.models import config_files
from jobs.models.config_files import ConfigFile

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
"""Model types whose decoder has a position table of length ``max_position_embeddings``."""

LAYERS = (
    "num_hidden_layers",
    "num_layers",
    "n_layer",
    "n_layers",
    "encoder_layers",
    "decoder_layers",
    "num_decoder_layers",
)
"""Config fields for the number of layers."""

MANY_LAYERS = 1_000
"""This many are always accepted: they load in seconds, and layers may share their tensors."""

LARGE_SIZE = 2_000_000
"""Sizes up to this are always accepted; vocabularies are smaller."""

DIMENSIONS = ("vocab_size", "intermediate_size", "hidden_size", "d_model", "dim", "n_embd")
"""Config fields that are a dimension of some tensor."""


def check(config: ConfigFile, *, tensors: Mapping[str, Any]) -> None:
    """Raise ``ModelFailure`` for sizes with which loading would never finish."""
    if "base_model.model" in next(iter(tensors), ""):  # an adapter: its base has the sizes
        return
    for name in LAYERS:
        layers = config.number(name) or 0
        if layers > max(MANY_LAYERS, len(tensors)):
            raise ModelFailure(
                f"{name} in config.json of the model is {layers:,.0f}, and its weights file has "
                f"{len(tensors):,} tensors"
            )
    longest = max((_longest_dimension(entry) for entry in tensors.values()), default=0)
    for name in DIMENSIONS:
        size = config.number(name) or 0
        if size > max(LARGE_SIZE, 2 * longest):
            raise ModelFailure(
                f"{name} in config.json of the model is {size:,.0f}, and no dimension of a tensor "
                f"in its weights file is larger than {longest:,}"
            )


def _longest_dimension(entry: Any) -> int:
    shape = entry.get("shape") if isinstance(entry, dict) else None
    sizes = [size for size in shape if isinstance(size, int)] if isinstance(shape, list) else []
    return max(sizes, default=0)


def largest_token(folder: Path) -> int | None:
    """The largest token id in a folder's tokenizer.json; ``None``: the file names no ids.

    Added special tokens do not count: a text has them only if it spells them out.
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
        vocabulary: Any = file.section("model").values.get("vocab")
        added: Any = file.values.get("added_tokens") or []
        ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        added_ids = (token["id"] for token in added if not token.get("special"))
        return max((*ids, *added_ids), default=None)
    except (ModelFailure, TypeError, LookupError):  # loading the tokenizer reports what is wrong
        return None
