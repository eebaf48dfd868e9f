"""Numbers as JSON has them: it knows neither infinity nor what is not a number."""

from __future__ import annotations

import math
from typing import Any


def finite(value: float | None) -> float | None:
    """The value; ``None`` for infinity and for what is not a number."""
    return value if value is not None and math.isfinite(value) else None


def storable(value: Any) -> Any:
    """The value with null for each number in it that JSON does not have."""
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, dict):
        return {key: storable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [storable(inner) for inner in value]
    return value
