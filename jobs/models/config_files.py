"""The JSON files of a model's folder, their fields of the types that they must have.

A file or a field may be missing; one that is there and of another type is a ``ModelFailure``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.errors import ModelFailure

NO_LIMIT = 10**9
"""Files that know no limit write 1e30."""

MAX_BYTES = 128 * 2**20
"""Of one file: the largest tokenizers have about 40 MiB."""

LONGEST_SHOWN = 100
"""Characters of a wrong value that its error repeats."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A JSON object of a model. Fields that are null count as missing, and are ``None``."""

    name: str  # in the folder, for people
    values: dict[str, Any]

    def text(self, name: str) -> str | None:
        """A field that must be a text."""
        value = self.values.get(name)
        if value is None or isinstance(value, str):
            return value
        raise self.wrong(name, "a text")

    def texts(self, name: str) -> tuple[str, ...]:
        """A field that must be a text or an array of texts; empty where it is missing."""
        value = self.values.get(name)
        found = [value] if isinstance(value, str) else value
        if found is None:
            return ()
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise self.wrong(name, "a text or an array of texts")
        return tuple(found)

    def flag(self, name: str) -> bool | None:
        """A field that must be true or false."""
        value = self.values.get(name)
        if value is None or isinstance(value, bool):
            return value
        raise self.wrong(name, "true or false")

    def number(self, name: str) -> float | None:
        """A field that must be a number."""
        value = self.values.get(name)
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            return value
        raise self.wrong(name, "a number")

    def whole(self, name: str) -> int | None:
        """A field that counts something; ``None`` also where it is no number to count by."""
        value = self.number(name)
        return int(value) if value is not None and 1 <= value < NO_LIMIT else None

    def part(self, name: str) -> ModelFile:
        """A field that must be an object; an empty one where it is missing."""
        value = self.values.get(name)
        if value is None or isinstance(value, dict):
            return ModelFile(f"{name} in {self.name}", value or {})
        raise self.wrong(name, "an object")

    def wrong(self, name: str, must: str) -> ModelFailure:
        """The error of a field that must be something else."""
        value = repr(self.values[name])
        shown = value if len(value) <= LONGEST_SHOWN else f"{value[:LONGEST_SHOWN]}..."
        return ModelFailure(f"{name} in {self.name} of the model must be {must}, not {shown}")


def read(path: Path) -> ModelFile:
    """The JSON object in a file that must be there."""
    value = _json(path)
    if not isinstance(value, dict):
        raise ModelFailure(f"{path.name} of the model must be a JSON object")
    return ModelFile(path.name, value)


def optional(folder: Path, name: str) -> ModelFile:
    """The JSON object in a file; an empty one where there is no such file."""
    path = folder / name
    return read(path) if path.is_file() else ModelFile(name, {})


def entries(path: Path) -> list[ModelFile]:
    """The objects of the JSON array in a file that must be there."""
    values = _json(path)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ModelFailure(f"{path.name} of the model must be a JSON array of objects")
    return [ModelFile(path.name, value) for value in values]


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
