"""A least-recently-used cache of the engines that a process keeps between chunks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jobs.kinds import Options
from jobs.models import inspection
from jobs.monitoring import catalogue, meters
from jobs.settings import Settings
from workers.inference import engine
from workers.inference.batching import memory
from workers.inference.engine import Engine


class EngineCache:
    """Loaded engines by model and options; the one used longest ago is dropped.

    It is dropped before the next one is loaded, so no more than ``size`` are ever in memory.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        size: int = 2,
        changed: Callable[[Sequence[Mapping[str, str]]], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._size = size
        self._changed = changed
        self._shown: dict[tuple[str, Options], dict[str, str]] = {}
        self._kept: OrderedDict[tuple[str, Options], Engine] = OrderedDict()

    def engine(self, folder: Path, options: Options, *, model: str = "", kind: str = "") -> Engine:
        """The folder's engine, loaded if it is not in the cache. Raises ``ModelFailure``.

        ``changed`` is then called with a description of every engine in the cache: ``model`` and
        ``kind`` as given here, and how rows share batches.
        """
        key = (inspection.inspect(folder).digest, options)
        is_loaded = key in self._kept
        meters.add(catalogue.ENGINES, outcome="cached" if is_loaded else "loaded")
        if not is_loaded:
            self._make_room()
            self._kept[key] = loaded = engine.load(folder, options, settings=self._settings)
            policy = loaded.batch_policy
            sharing = "as the pipeline cuts them" if policy is None else str(policy)
            self._shown[key] = {"model": model or folder.name, "kind": kind, "sharing": sharing}
            self._changed([self._shown[each] for each in self._kept])
            meters.level(catalogue.ENGINES_LOADED, len(self._kept))
        self._kept.move_to_end(key)
        return self._kept[key]

    def _make_room(self) -> None:
        while len(self._kept) >= self._size:
            key, _ = self._kept.popitem(last=False)
            del self._shown[key]
            memory.empty_cache()
