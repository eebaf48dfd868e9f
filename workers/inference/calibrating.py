"""How many tokens of a model go through a device best together: found by trying, and remembered.

What is tried is real work. Until it is known, batches of several sizes take turns, longest rows
first, so that sizes are compared on rows of nearly one length; answers do not depend on it (promise
P6). What was found is remembered (``tuning_cache``), by all that it depends on but the rows: those
to come are taken to be like the first.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import structlog
from transformers import PreTrainedModel

from jobs.settings import Settings
from workers.inference.tuning_cache import TuningCache

log = structlog.get_logger()

VERDICT = "batch_tokens"

SIZES = {"cpu": (512, 1_024, 2_048, 4_096)}
ACCELERATOR_SIZES = (8_192, 16_384, 32_768, 65_536)

LAPS = 8
"""Laps that are measured before a size may leave the race."""

FULL = 0.75
"""A batch with less than this share of its size says nothing of it: there were no more rows."""

NEAR = 0.99
"""Sizes within this share of each other are held for equal, and the largest is taken: rows longer
than those it was found on gain by it, for more of one length go together."""

PATIENCE = 40
"""So many laps are measured at most."""


class Trial:
    """A race of sizes: they take turns until one is left, or patience ends; ``keep`` is then told.

    In a lap each has one batch, and only what was measured in one lap is compared: rows of another
    length have another speed. Every other lap goes backwards, for rows get shorter within one, too.
    The first lap warms up. Single batches vary by more than sizes differ, so a size leaves only
    when the fastest one beat it in more laps than chance would bring.
    """

    def __init__(self, sizes: Sequence[int], *, keep: Callable[[int], None]) -> None:
        self._racing = sorted(sizes)
        self._laps: list[dict[int, float]] = []  # tokens per second, by size
        self._ahead: list[int] = []  # sizes whose turn in this lap is still to come
        self._keep = keep

    @property
    def largest(self) -> int:
        """Of the sizes in the race."""
        return self._racing[-1]

    def next(self) -> int:
        """The size whose turn it is."""
        if not self._ahead:
            self._ahead = self._racing[:: 1 if len(self._laps) % 2 else -1]
            self._laps.append({})
        return self._ahead.pop()

    def note(self, size: int, *, tokens: int, seconds: float) -> None:
        """A batch of this size had so many tokens and took so long."""
        if tokens >= FULL * size:
            self._laps[-1][size] = tokens / max(seconds, 1e-9)
        if not self._ahead:
            self._leave()

    @property
    def over(self) -> bool:
        """Whether one size is left, or the last lap was run."""
        return len(self._racing) == 1 or (len(self._laps) > PATIENCE and not self._ahead)

    def best(self) -> int | None:
        """The largest of the fastest; kept if all in the race are known. ``None``: none is."""
        speeds = self._speeds()
        if not speeds:
            return None
        fastest = max(speeds.values())
        size = max(size for size, speed in speeds.items() if speed >= NEAR * fastest)
        log.info(
            "batch size calibrated", tokens=size, relative_speeds=speeds, laps=len(self._laps) - 1
        )
        if len(speeds) == len(self._racing):
            self._keep(size)
        return size

    def _leave(self) -> None:
        """Sizes that are surely slower than the fastest are out."""
        speeds = self._speeds()
        if speeds:
            fastest = max(speeds, key=speeds.__getitem__)
            self._racing = [size for size in self._racing if not self._loses(size, to=fastest)]

    def _loses(self, size: int, *, to: int) -> bool:
        """Whether a size was beaten in so many laps as fair coins would come up once in 40 times.

        Of n fair coins about half come up, give or take the root of n, two standard deviations.
        """
        laps = [lap for lap in self._laps[1:] if size in lap and to in lap]
        beaten = sum(lap[size] < NEAR * lap[to] for lap in laps)
        return len(laps) >= LAPS and beaten >= len(laps) / 2 + math.sqrt(len(laps))

    def _speeds(self) -> dict[int, float]:
        """How fast the known sizes are, relative to the smallest in the race: medians of laps."""
        smallest = self._racing[0]
        laps = [lap for lap in self._laps[1:] if smallest in lap]
        found = {
            size: [lap[size] / lap[smallest] for lap in laps if size in lap]
            for size in self._racing
        }
        return {
            size: statistics.median(ratios) for size, ratios in found.items() if len(ratios) >= LAPS
        }


def trial(settings: Settings, *, model: PreTrainedModel, digest: str, kind: str) -> Trial | int:
    """The best size for a model where it is known, by the settings or from before; else a trial.

    ``kind`` tells apart what else is computed differently.
    """
    if settings.batch_tokens:
        return settings.batch_tokens
    cache = TuningCache.of(settings, model=model, digest=digest, kind=kind)
    known = cache.get(VERDICT, _size)
    sizes = SIZES.get(model.device.type, ACCELERATOR_SIZES)
    return Trial(sizes, keep=partial(cache.keep, VERDICT)) if known is None else known


def _size(value: Any) -> int:
    if not isinstance(value, int) or value <= 0:
        raise ValueError(value)
    return value
