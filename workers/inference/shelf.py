"""The models that a process keeps between chunks."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from jobs import models
from jobs.settings import Settings
from jobs.specs import Options
from workers.inference import engine, memory
from workers.inference.engine import Engine


class Shelf:
    """Loaded engines by what they answer; the one used longest ago makes room.

    Room is made before the next one is loaded, so no more than ``size`` are ever in memory.
    """

    def __init__(self, settings: Settings, *, size: int = 2) -> None:
        self._settings = settings
        self._size = size
        self._kept: OrderedDict[tuple[str, Options], Engine] = OrderedDict()

    def engine(self, folder: Path, options: Options) -> Engine:
        """The folder's engine, loaded if it is not here. Raises ``ModelFailure``."""
        key = (models.inspect(folder).digest, options)
        if key not in self._kept:
            self._make_room()
            self._kept[key] = engine.load(folder, options, settings=self._settings)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _make_room(self) -> None:
        while len(self._kept) >= self._size:
            self._kept.popitem(last=False)
            memory.give_back()
