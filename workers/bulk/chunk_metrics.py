"""What is counted of a chunk: the time of its stages, and what its commit made of its rows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.ledger.chunks import ChunkLease, PartRecord
from jobs.monitoring import catalogue, meters
from jobs.monitoring.catalogue import ChunkStage, Tokens
from jobs.progress import WorkMeter
from jobs.settings import Settings
from workers.inference.batching import memory


class StageTimes:
    """Seconds of one chunk by stage."""

    def __init__(self) -> None:
        self.seconds: dict[ChunkStage, float] = {}

    @contextmanager
    def timed(self, stage: ChunkStage) -> Iterator[None]:
        """Add the time of the block to the stage."""
        begun = time.perf_counter()
        yield
        took = time.perf_counter() - begun
        self.seconds[stage] = self.seconds.get(stage, 0.0) + took


def count(
    lease: ChunkLease,
    part: PartRecord,
    *,
    computed: int,
    times: StageTimes,
    meter: WorkMeter,
    settings: Settings,
) -> None:
    """Count a committed chunk, ``computed`` of whose rows were computed for it."""
    _count_times(lease, times=times, meter=meter)
    of_job = {"pool": settings.pool, "kind": lease.spec.kind}
    meters.add(catalogue.ROWS, max(computed - part.rows_failed, 0), outcome="ok", **of_job)
    meters.add(catalogue.ROWS, part.rows_failed, outcome="error", **of_job)
    meters.add(catalogue.TOKENS, part.tokens, **of_job)
    for code, found in part.errors.items():
        meters.add(catalogue.ERROR_ROWS, found["rows"], code=code)
    meters.add(catalogue.DEVICE_TOKENS, meter.tokens, what=Tokens.TEXT)
    meters.add(catalogue.DEVICE_TOKENS, meter.padding, what=Tokens.PADDING)
    if meters.counts():
        for device, used in memory.in_use().items():
            meters.level(catalogue.DEVICE_MEMORY, used, device=device)


def _count_times(lease: ChunkLease, *, times: StageTimes, meter: WorkMeter) -> None:
    seconds = dict(times.seconds)
    if lease.waited_seconds is not None:
        seconds[ChunkStage.WAIT] = lease.waited_seconds
    if meter.tokenize_seconds:
        seconds[ChunkStage.TOKENIZE] = meter.tokenize_seconds
    for stage, took in seconds.items():
        meters.observe(catalogue.CHUNK_SECONDS, took, stage=stage)
