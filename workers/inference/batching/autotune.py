"""Autotuning of the batch size: how many tokens go through the device together fastest.

The trial runs on real rows. Until the best size is known, batches of several sizes take turns,
longest rows first, so that sizes are compared on rows of nearly equal length; results do not depend
on the size (promise P6). The best size is cached (``autotune_cache``) by everything that it depends
on except the rows: later rows are assumed to be like the first ones (decision 0014).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import structlog
from transformers import PreTrainedModel

from jobs.settings import Settings
from workers.inference.batching.autotune_cache import TuningCache
from workers.inference.batching.race import TIE, Race

log = structlog.get_logger()

CACHE_NAME = "batch_tokens"

CPU_BATCH_SIZES = {"cpu": (512, 1_024, 2_048, 4_096)}
ACCELERATOR_SIZES = (8_192, 16_384, 32_768, 65_536)

MIN_FILLED = 0.75
"""A batch with fewer tokens than this share of its size is not measured: rows had run out."""


class BatchSizeTrial:
    """A race of batch sizes on real rows (``race``); ``keep`` gets the best one at the end.

    Each size has one batch in a lap, and only batches of one lap are compared: speed depends on the
    length of the rows.
    """

    def __init__(self, sizes: Sequence[int], *, keep: Callable[[int], None]) -> None:
        self._race = Race(sorted(sizes))
        self._keep = keep

    @property
    def largest(self) -> int:
        """The largest size that is still in the race."""
        return self._race.remaining[-1]

    def next(self) -> int:
        """The size whose turn it is."""
        return self._race.next()

    def record(self, size: int, *, tokens: int, seconds: float) -> None:
        """A batch of this size had this many tokens and took this long."""
        speed = tokens / max(seconds, 1e-9)
        self._race.record(size, speed if tokens >= MIN_FILLED * size else None)

    @property
    def over(self) -> bool:
        """Whether one size is left, or the last lap is finished."""
        return self._race.over

    def best(self) -> int | None:
        """The largest of the sizes that tie for the fastest; ``None``: no size was measured.

        It is kept if every size in the race was measured. The largest, because rows longer than
        those of the trial gain from it: more rows of one length share a batch.
        """
        speeds = self._race.speeds()
        if not speeds:
            return None
        fastest = max(speeds.values())
        size = max(size for size, speed in speeds.items() if speed >= TIE * fastest)
        log.info("batch size calibrated", tokens=size, relative_speeds=speeds, laps=self._race.laps)
        if len(speeds) == len(self._race.remaining):
            self._keep(size)
        return size


def size_or_trial(
    settings: Settings, *, model: PreTrainedModel, digest: str, variant: str
) -> int | BatchSizeTrial:
    """The batch size from the settings or the cache; where neither has one, a trial.

    ``variant`` names what else makes the same model compute differently.
    """
    if settings.batch_tokens:
        return settings.batch_tokens
    cache = TuningCache.of(settings, model=model, digest=digest, variant=variant)
    cached = cache.get(CACHE_NAME, _size)
    if cached is not None:
        return cached
    sizes = CPU_BATCH_SIZES.get(model.device.type, ACCELERATOR_SIZES)
    return BatchSizeTrial(sizes, keep=partial(cache.keep, CACHE_NAME))


def _size(value: Any) -> int:
    if not isinstance(value, int) or value <= 0:
        raise ValueError(value)
    return value
