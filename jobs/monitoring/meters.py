"""What this process counts. Before ``begin`` it counts nothing, and costs nothing.

The processes of a worker write into one folder, each into files of its slot in the pool: a process
that dies leaves its counts to the one that takes its slot, so that no counter goes back and no file
is left over. Their parent answers for all of them (docs/decisions/0051).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import prometheus_client
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess, values
from prometheus_client.values import MultiProcessValue

from jobs.monitoring import catalogue
from jobs.monitoring.catalogue import MOST_VALUES, OTHER, Label, Metric, MetricType, Source

log = structlog.get_logger()

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with the folder of a worker; prometheus_client reads it too."""

PARENT = "parent"
FILE_BYTES = 2**18
"""Of each file, taken at the start: a write into it cannot meet a full disk."""

GAUGES = "gauge_sum"
_FILES = ("counter", "histogram", GAUGES)


_Instrument = Counter | Gauge | Histogram


class _Meters:
    """The instruments of this process, made as they are used."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._made: dict[str, _Instrument] = {}
        self._seen: dict[tuple[str, str], set[str]] = {}  # values of labels
        self._lock = threading.Lock()

    def instrument(self, metric: Metric, labels: dict[str, str]) -> _Instrument:
        """The series with these values, those beyond the limit replaced."""
        with self._lock:
            made = self._made.get(metric.name) or self._make(metric)
            bounded = [self._bounded(metric, label, labels[label.name]) for label in metric.labels]
        return made.labels(*bounded) if bounded else made

    def make_all(self, source: Source) -> None:
        """Make every series that is known, so that its first event is seen as a rise from zero."""
        for metric in catalogue.ALL:
            if source in metric.sources and metric.type is not MetricType.GAUGE:
                with self._lock:
                    made = self._made.get(metric.name) or self._make(metric)
                for known in filter(None, metric.known()):
                    made.labels(*known)

    def clear(self, metric: Metric) -> None:
        """Forget every series of the metric."""
        with self._lock:
            if made := self._made.get(metric.name):
                made.clear()

    def _make(self, metric: Metric) -> _Instrument:
        names, registry = [label.name for label in metric.labels], self.registry
        made: _Instrument
        match metric.type:
            case MetricType.COUNTER:
                made = Counter(metric.name, metric.help, names, registry=registry)
            case MetricType.GAUGE:
                made = Gauge(
                    metric.name, metric.help, names, registry=registry, multiprocess_mode="sum"
                )
            case MetricType.HISTOGRAM:
                buckets = metric.buckets
                made = Histogram(
                    metric.name, metric.help, names, registry=registry, buckets=buckets
                )
        self._made[metric.name] = made
        return made

    def _bounded(self, metric: Metric, label: Label, value: str) -> str:
        seen = self._seen.setdefault((metric.name, label.name), set())
        if value not in seen and len(seen) >= MOST_VALUES:
            return OTHER
        seen.add(value)
        return value


_meters: _Meters | None = None


def begin(source: Source) -> CollectorRegistry:
    """Count from now on; the registry is that of this process alone."""
    end()  # so that a folder that the environment names for another program is not written to
    return _begin(source)


def begin_with_children(source: Source, folder: Path, *, slots: int) -> CollectorRegistry:
    """Count from now on, in this process and in those it starts; the registry is that of all.

    Raises ``OSError`` if the folder has no room.
    """
    for slot in (PARENT, *map(str, range(slots))):
        for kind in _FILES:
            _allocate(folder / f"{kind}_{slot}.db")
    os.environ[FOLDER] = str(folder)
    values.ValueClass = MultiProcessValue(lambda: PARENT)
    _begin(source)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, path=str(folder))
    return registry


def _begin(source: Source) -> CollectorRegistry:
    global _meters  # noqa: PLW0603 - a property of the process
    prometheus_client.disable_created_metrics()
    _meters = _Meters()
    _meters.make_all(source)
    return _meters.registry


def join(slot: int) -> None:
    """Count from now on in the place of this process among its siblings, if their parent does.

    A process that cannot warns and does its work without.
    """
    global _meters  # noqa: PLW0603 - a property of the process
    if folder := os.environ.get(FOLDER):
        try:  # what was true of the process before this one is not
            _allocate(Path(folder) / f"{GAUGES}_{slot}.db")
        except OSError as error:
            log.warning("this process has no metrics", error=str(error))
            end()
            return
        values.ValueClass = MultiProcessValue(lambda: str(slot))
        _meters = _Meters()


def vacate(slot: int) -> None:
    """Forget the gauges of a process that is gone, and that no other replaces; for its parent."""
    if folder := os.environ.get(FOLDER):
        with contextlib.suppress(OSError):
            _allocate(Path(folder) / f"{GAUGES}_{slot}.db")


def end() -> None:
    """Count no more."""
    global _meters  # noqa: PLW0603 - a property of the process
    if os.environ.pop(FOLDER, None):
        values.close_all_multiprocess_files()
    values.ValueClass = values.MutexValue
    _meters = None


def counts() -> bool:
    """Whether this process counts."""
    return _meters is not None


def add(metric: Metric, amount: float = 1.0, **labels: str) -> None:
    """Raise a counter."""
    if _meters is not None:
        instrument = _meters.instrument(metric, labels)
        assert isinstance(instrument, Counter)
        instrument.inc(amount)


def level(metric: Metric, value: float, **labels: str) -> None:
    """Set a gauge."""
    if _meters is not None:
        instrument = _meters.instrument(metric, labels)
        assert isinstance(instrument, Gauge)
        instrument.set(value)


def observe(metric: Metric, value: float, **labels: str) -> None:
    """Add an observation to a histogram."""
    if _meters is not None:
        instrument = _meters.instrument(metric, labels)
        assert isinstance(instrument, Histogram)
        instrument.observe(value)


def clear(metric: Metric) -> None:
    """Forget every series of a metric; only in a process that has no siblings."""
    if _meters is not None:
        _meters.clear(metric)


@contextlib.contextmanager
def timed(metric: Metric, **labels: str) -> Iterator[None]:
    """Observe how long the block takes, however it ends."""
    begun = time.perf_counter()
    try:
        yield
    finally:
        observe(metric, time.perf_counter() - begun, **labels)


def _allocate(path: Path) -> None:
    """A new file in place of the one before: a scrape never reads one without its content."""
    made = path.with_suffix(".new")
    with made.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, FILE_BYTES)
        else:
            file.write(bytes(FILE_BYTES))
    made.replace(path)
