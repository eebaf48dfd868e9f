"""The tensors in a model's folder, from the headers of its safetensors files.

Weights in pickle files are refused: unpickling executes code (promise P10).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from jobs.errors import ModelFailure
from jobs.models import config_files
from jobs.models.config_files import ADAPTER, ConfigFile

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
MAX_HEADER = 100 * 2**20
"""Bytes: the safetensors format's own limit on its header."""

_BAD_HEADER = (
    OSError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    RecursionError,
    struct.error,
)


def tensors(folder: Path) -> dict[str, Any]:
    """The header entries of all tensors, by name. Each file must be as long as its header says.

    Raises ``ModelFailure``: model_not_safetensors, model_unreadable.
    """
    files = list(_files(folder))
    if not files:
        has_pickles = any(True for pattern in PICKLES for _ in folder.glob(pattern))
        raise ModelFailure(
            "the weights must be safetensors; this folder has "
            + ("pickle files: convert them with " if has_pickles else "none: write them with ")
            + "model.save_pretrained(folder, safe_serialization=True)",
            code="model_not_safetensors",
        )
    return {name: entry for path in files for name, entry in _header(path).items()}


def _files(folder: Path) -> Iterator[Path]:
    name = "adapter_model" if (folder / ADAPTER).is_file() else "model"
    whole, index = folder / f"{name}.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        yield whole
    elif index.is_file():
        names = config_files.read(index).section("weight_map")
        for file in sorted({_file_of(tensor, names) for tensor in names.values}):
            yield folder / file


def _file_of(tensor: str, names: ConfigFile) -> str:
    file = names.text(tensor)
    if not file or file != Path(file).name:
        raise names.wrong(tensor, "the name of a file in the same folder")
    return file


def _header(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file, which must be as long as its header says.

    The format: 8 bytes of little-endian length, that many bytes of JSON, the tensors' bytes.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            entries = json.loads(file.read(min(length, MAX_HEADER)))
        entries.pop("__metadata__", None)
        end = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except _BAD_HEADER as error:
        raise ModelFailure(
            f"{path.name} is not a whole safetensors file: its header cannot be read"
        ) from error
    if size != 8 + length + end:
        raise ModelFailure(
            f"{path.name} must have {8 + length + end} bytes by its header, and has {size}: "
            "it was cut short or changed"
        )
    return cast("dict[str, Any]", entries)
