"""Facts of the ledger as metrics: gauges alone, so that every process that reads gives the same.

They are read when they are asked for, and kept for some seconds. A scrape never waits longer for
them than ``PATIENCE``, whatever Postgres does. What the ledger holds is bounded for labels as what
processes count is.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.orm import Session

from jobs.database import Sessions
from jobs.monitoring import catalogue
from jobs.monitoring.catalogue import MOST_VALUES, OTHER, Metric
from jobs.queries import demand, monitoring
from jobs.queries.monitoring import Counts

log = structlog.get_logger()

KEPT_SECONDS = 5.0
"""Two readings are at least this far apart."""

PATIENCE = 8.0
"""Seconds that a scrape waits for a reading; Prometheus itself gives up after 10."""

Facts = Mapping[Metric, Counts]
UNREADABLE: Facts = {catalogue.LEDGER_UP: [((), 0.0)]}


def registry(sessions: Sessions) -> CollectorRegistry:
    """The registry whose metrics are the ledger's."""
    made = CollectorRegistry(auto_describe=False)
    made.register(LedgerCollector(sessions))
    return made


class LedgerCollector(Collector):
    """Reads the ledger for a scrape; of several at once, one reads for all."""

    def __init__(
        self, sessions: Sessions, *, kept_seconds: float = KEPT_SECONDS, patience: float = PATIENCE
    ) -> None:
        self._sessions = sessions
        self._kept_seconds = kept_seconds
        self._patience = patience
        self._lock = threading.Lock()
        self._reading: _Reading | None = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """A family for each metric; of a ledger that cannot be read only that it cannot."""
        with self._lock:
            if self._reading is None or self._reading.is_older_than(self._kept_seconds):
                self._reading = _Reading(self._sessions)
            reading = self._reading
        for metric, counts in reading.facts(patience=self._patience).items():
            family = GaugeMetricFamily(
                metric.name, metric.help, labels=[label.name for label in metric.labels]
            )
            for labels, figure in bounded(metric, counts):
                family.add_metric(labels, figure)
            yield family


class _Reading:
    """One reading of the ledger, in a thread of its own."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._facts = UNREADABLE
        self._ended_at = 0.0
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="metrics-ledger", daemon=True).start()

    def is_older_than(self, seconds: float) -> bool:
        """Whether it ended longer ago; of one that goes on, no."""
        return self._ended.is_set() and time.monotonic() - self._ended_at > seconds

    def facts(self, *, patience: float) -> Facts:
        """What was read, once it was; that the ledger cannot be read if it takes too long."""
        return self._facts if self._ended.wait(patience) else UNREADABLE

    def _run(self) -> None:
        begun = time.perf_counter()
        try:
            with self._sessions.begin() as session:
                facts = read(session)
        except Exception as error:  # noqa: BLE001 - whatever it is, scrapes say that there is none
            log.warning("the ledger cannot be read for metrics", error=str(error))
        else:
            took = time.perf_counter() - begun
            up = {catalogue.LEDGER_UP: _one(1.0), catalogue.LEDGER_SECONDS: _one(took)}
            self._facts = {**up, **facts}
        self._ended_at = time.monotonic()
        self._ended.set()


def read(session: Session) -> Facts:
    """Every fact of the ledger, in one transaction."""
    return {
        catalogue.JOBS: monitoring.jobs(session),
        catalogue.JOBS_ENDED: monitoring.jobs_ended(session),
        catalogue.WORKERS: monitoring.workers(session),
        catalogue.HOSTS: monitoring.hosts(session),
        catalogue.MESSAGES_REFUSED: _one(monitoring.messages_refused(session)),
        catalogue.RUNS: monitoring.runs(session),
        catalogue.CHECKPOINT_AGE: monitoring.checkpoint_ages(session),
        catalogue.SCHEDULES: monitoring.schedules(session),
        catalogue.SCHEDULE_LAG: _one(monitoring.schedule_lag(session)),
        catalogue.FIRES: monitoring.fires(session),
        catalogue.WEBHOOK_ENDPOINTS: monitoring.webhook_endpoints(session),
        catalogue.STORAGE: monitoring.storage(session, limit=MOST_VALUES),
        catalogue.COLLECTION_AGE: _one(monitoring.collection_age(session)),
        **_waiting(session),
        **_control(session),
        **_webhooks(session),
        **_demand(session),
    }


def bounded(metric: Metric, counts: Iterable[tuple[tuple[str, ...], float]]) -> Counts:
    """The counts with at most ``MOST_VALUES`` values of each label.

    Those beyond are added up; of times the longest counts.
    """
    seen: Mapping[int, set[str]] = defaultdict(set)
    figures: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for labels, figure in sorted(counts):
        kept = tuple(_bounded(value, seen[place]) for place, value in enumerate(labels))
        figures[kept].append(figure)
    joined = max if metric.name.endswith("_seconds") else sum
    return [(labels, joined(found)) for labels, found in figures.items()]


def _bounded(value: str, seen: set[str]) -> str:
    if value not in seen and len(seen) >= MOST_VALUES:
        return OTHER
    seen.add(value)
    return value


def _one(figure: float | None) -> Counts:
    return [] if figure is None else [((), float(figure))]


def _waiting(session: Session) -> Facts:
    found = monitoring.waiting(session)
    return {
        catalogue.WAITING_JOBS: [((each.pool, each.reason), each.jobs) for each in found],
        catalogue.OLDEST_WAITING: [
            ((each.pool, each.reason), each.oldest_seconds) for each in found
        ],
    }


def _control(session: Session) -> Facts:
    found = monitoring.control(session)
    return {
        catalogue.CONTROL_AGE: _one(found.turn_age_seconds),
        catalogue.BROKER_AWAY: _one(float(found.broker_away)),
    }


def _webhooks(session: Session) -> Facts:
    found = monitoring.webhook_deliveries(session)
    return {
        catalogue.WEBHOOKS_PENDING: _one(found.pending),
        catalogue.WEBHOOK_AGE: _one(found.oldest_seconds),
    }


def _demand(session: Session) -> Facts:
    facts: dict[Metric, Counts] = defaultdict(list)
    for each in demand.of_all(session):
        pool = (each.pool,)
        facts[catalogue.CHUNKS] += [
            ((each.pool, "pending"), float(each.chunks_pending)),
            ((each.pool, "sent"), float(each.chunks_sent)),
            ((each.pool, "leased"), float(each.slots_busy)),
        ]
        facts[catalogue.SLOTS].append((pool, float(each.slots_heard)))
        facts[catalogue.SLOTS_WANTED].append((pool, float(each.slots.wanted)))
        facts[catalogue.SLOTS_FOR_DEADLINES].append((pool, float(each.slots.for_deadlines)))
        facts[catalogue.HOSTS_WANTED].append((pool, float(each.hosts_wanted)))
    return facts
