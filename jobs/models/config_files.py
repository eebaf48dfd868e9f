"""The JSON files of a model's folder, with the types of their fields checked.

A file or a field may be missing. One that is present with another type is a ``ModelFailure``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.errors import ModelFailure

ADAPTER = "adapter_config.json"

NO_LIMIT = 10**9
"""From here on a limit is none: files without a limit have 1e30."""

MAX_BYTES = 128 * 2**20
"""Of one file: the largest tokenizers have about 40 MiB."""

MAX_SHOWN = 100
"""Characters of a wrong value that its error repeats."""


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A JSON object of a model. A field that is null counts as missing: its value is ``None``."""

    name: str  # for error messages
    values: dict[str, Any]

    def text(self, name: str) -> str | None:
        value = self.values.get(name)
        if value is None or isinstance(value, str):
            return value
        raise self.wrong(name, "a text")

    def texts(self, name: str) -> tuple[str, ...]:
        """A text or an array of texts; empty where it is missing."""
        value = self.values.get(name)
        texts = [value] if isinstance(value, str) else value
        if texts is None:
            return ()
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise self.wrong(name, "a text or an array of texts")
        return tuple(texts)

    def flag(self, name: str) -> bool | None:
        value = self.values.get(name)
        if value is None or isinstance(value, bool):
            return value
        raise self.wrong(name, "true or false")

    def number(self, name: str) -> float | None:
        value = self.values.get(name)
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            return value
        raise self.wrong(name, "a number")

    def count(self, name: str) -> int | None:
        """A whole number of at least 1; ``None`` also for a number that is no count."""
        value = self.number(name)
        return int(value) if value is not None and 1 <= value < NO_LIMIT else None

    def section(self, name: str) -> ConfigFile:
        """An object; an empty one where it is missing."""
        value = self.values.get(name)
        if value is None or isinstance(value, dict):
            return ConfigFile(f"{name} in {self.name}", value or {})
        raise self.wrong(name, "an object")

    def wrong(self, name: str, must: str) -> ModelFailure:
        """The error for a field that must be something else."""
        value = repr(self.values[name])
        shown = value if len(value) <= MAX_SHOWN else f"{value[:MAX_SHOWN]}..."
        return ModelFailure(f"{name} in {self.name} of the model must be {must}, not {shown}")


def read(path: Path) -> ConfigFile:
    """The JSON object in a file that must exist."""
    value = _json(path)
    if not isinstance(value, dict):
        raise ModelFailure(f"{path.name} of the model must be a JSON object")
    return ConfigFile(path.name, value)


def optional(folder: Path, name: str) -> ConfigFile:
    """The JSON object in a file; an empty one if there is no such file."""
    path = folder / name
    return read(path) if path.is_file() else ConfigFile(name, {})


def entries(path: Path) -> list[ConfigFile]:
    """The objects of the JSON array in a file that must exist."""
    values = _json(path)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ModelFailure(f"{path.name} of the model must be a JSON array of objects")
    return [ConfigFile(path.name, value) for value in values]


def _json(path: Path) -> Any:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ModelFailure(
                f"{path.name} of the model must have at most {MAX_BYTES:,} bytes, not {size:,}"
            )
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFailure(f"{path.name} of the model is not readable JSON: {error}") from error
