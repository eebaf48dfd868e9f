"""How many tokens of a model go through a device best together: found by trying, and remembered.

What is tried is real work. Until it is known, batches of several sizes take turns, longest rows
first, so that sizes are compared on rows of nearly one length; answers do not depend on it (promise
P6). What was found is remembered (``tuning_cache``), by all that it depends on but the rows: those
to come are taken to be like the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import structlog
from transformers import PreTrainedModel

from jobs.settings import Settings
from workers.inference.batching.autotune_cache import TuningCache
from workers.inference.batching.race import NEAR, Race

log = structlog.get_logger()

VERDICT = "batch_tokens"

SIZES = {"cpu": (512, 1_024, 2_048, 4_096)}
ACCELERATOR_SIZES = (8_192, 16_384, 32_768, 65_536)

FULL = 0.75
"""A batch with less than this share of its size says nothing of it: there were no more rows."""


class Trial:
    """A race of sizes on real rows (``race``); when it is over, ``keep`` is told the best.

    In a lap each has one batch, and only laps are compared: rows of another length have another
    speed.
    """

    def __init__(self, sizes: Sequence[int], *, keep: Callable[[int], None]) -> None:
        self._race = Race(sorted(sizes))
        self._keep = keep

    @property
    def largest(self) -> int:
        """Of the sizes in the race."""
        return self._race.racing[-1]

    def next(self) -> int:
        """The size whose turn it is."""
        return self._race.next()

    def note(self, size: int, *, tokens: int, seconds: float) -> None:
        """A batch of this size had so many tokens and took so long."""
        self._race.note(size, tokens / max(seconds, 1e-9) if tokens >= FULL * size else None)

    @property
    def over(self) -> bool:
        """Whether one size is left, or the last lap was run."""
        return self._race.over

    def best(self) -> int | None:
        """The largest of the fastest; kept if all in the race are known. ``None``: none is.

        Rows longer than those it was found on gain by the largest: more of one length go together.
        """
        speeds = self._race.speeds()
        if not speeds:
            return None
        fastest = max(speeds.values())
        size = max(size for size, speed in speeds.items() if speed >= NEAR * fastest)
        log.info("batch size calibrated", tokens=size, relative_speeds=speeds, laps=self._race.laps)
        if len(speeds) == len(self._race.racing):
            self._keep(size)
        return size


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
