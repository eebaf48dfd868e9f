"""A model's digest: sha256 over the names and contents of all files that its results depend on."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from jobs.models import signatures
from jobs.models.config_files import ADAPTER

FILES = (
    "config.json",
    ADAPTER,
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "*.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "modules.json",
    "sentence_*_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
    "generation_config.json",
    "chat_template*",
    "preprocessor_config.json",
    "processor_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    signatures.FILE,
)


def digest(folder: Path, *, base: str | None = None) -> str:
    """The digest of a model's folder; ``base`` is that of the model which an adapter adapts."""
    paths = {path for pattern in FILES for path in folder.glob(pattern) if path.is_file()}
    whole = hashlib.sha256()
    for path in sorted(paths):
        state = path.stat()
        content = _file_digest(path, size=state.st_size, changed=state.st_mtime_ns)
        whole.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    if base is not None:
        whole.update(f"base\0{base}\n".encode())
    return whole.hexdigest()


@functools.lru_cache(maxsize=1024)
def _file_digest(path: Path, *, size: int, changed: int) -> str:  # noqa: ARG001 (the cache's key)
    """A file's sha256, read once for as long as its size and time of change stay."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
