"""What our handlers need."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.settings import Settings
from workers.flower.broker import QueuesInRedis
from workers.flower.reader import Reader, Writer


@dataclass(frozen=True)
class Collaborators:
    """One of each for all handlers."""

    reader: Reader
    writer: Writer | None  # None: this Flower only shows
    queues: QueuesInRedis
    settings: Settings
