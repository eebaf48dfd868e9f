"""Every metric: name, type, labels, meaning, and which process has it (``docs/metrics.md``).

A fact of a process is counted by ``meters``, a fact of the ledger is read by ``ledger_metrics``
(docs/decisions/0051). No label holds an id, a text or a path. A label whose values are not listed
here (pools, kinds, routes) has at most ``MOST_VALUES`` of them; others count as ``OTHER``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from jobs.row_codes import RowCode

MOST_VALUES = 100
OTHER = "other"


class Source(StrEnum):
    """Who has a metric: a role of a process, or the ledger."""

    API = "api"
    CONTROL = "control"
    PLANNER = "planner"
    POOL = "pool"
    HOST = "host"
    LEDGER = "ledger"


class MetricType(StrEnum):
    """A type of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Label:
    """A label; of one with ``values`` every series is there from the start, at zero."""

    name: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metric:
    """A metric. ``sources``: who has it; ``buckets``: of a histogram, in its unit."""

    name: str
    type: MetricType
    help: str
    sources: tuple[Source, ...]
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """The names of its time series, as queries use them."""
        if self.type is MetricType.HISTOGRAM:
            return tuple(f"{self.name}_{end}" for end in ("bucket", "sum", "count"))
        return (self.name,)

    def known(self) -> Iterator[tuple[str, ...]]:
        """Values of its labels that are known from the start; none if one of them is open."""
        yield from itertools.product(*(label.values for label in self.labels))


class ChunkStage(StrEnum):
    """Where the time of a chunk goes."""

    WAIT = "wait"
    CLAIM = "claim"
    READ = "read"
    LOAD = "load"
    COMPUTE = "compute"
    TOKENIZE = "tokenize"
    WRITE = "write"
    COMMIT = "commit"


class Tokens(StrEnum):
    """What passes the device."""

    TEXT = "text"
    PADDING = "padding"


CONTROL_PARTS = (
    *("expire", "fire", "settle", "rescue", "fail_jobs_over_their_limit", "begin_finalizing"),
    *("dispatch_steps", "dispatch_chunks", "retain", "mend"),
    *("judge_runs", "stop_runs", "give_way", "end_cancelled", "form_gangs", "dispatch_ranks"),
    "forget_hosts",
)
"""Parts of a turn of control, by the names of their functions."""

_WORKERS = (Source.PLANNER, Source.POOL, Source.HOST)
_POOL, _KIND, _REASON, _STATE = map(Label, ("pool", "kind", "reason", "state"))
_TASK = Label("task", ("plan", "finalize", "chunk", "rank"))
_OUTCOME = Label("state", ("done", "failed", "postponed", "stopped", "superseded", "raised"))
_PART = Label("part", CONTROL_PARTS)


def _counter(name: str, text: str, *sources: Source, labels: tuple[Label, ...] = ()) -> Metric:
    return Metric(f"nightshift_{name}_total", MetricType.COUNTER, text, sources, labels)


def _gauge(name: str, text: str, *sources: Source, labels: tuple[Label, ...] = ()) -> Metric:
    return Metric(f"nightshift_{name}", MetricType.GAUGE, text, sources, labels)


def _seconds(
    name: str,
    text: str,
    *sources: Source,
    buckets: tuple[float, ...],
    labels: tuple[Label, ...] = (),
) -> Metric:
    return Metric(
        f"nightshift_{name}_seconds", MetricType.HISTOGRAM, text, sources, labels, buckets
    )


def _fact(name: str, text: str, *labels: Label) -> Metric:
    return _gauge(name, text, Source.LEDGER, labels=labels)


HTTP_SECONDS = _seconds(
    "http_request",
    "Time to answer a request.",
    Source.API,
    buckets=(0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
    labels=(Label("method"), Label("route")),
)
HTTP_REQUESTS = _counter(
    "http_requests",
    "Requests that were answered, by the template of their route.",
    Source.API,
    labels=(Label("method"), Label("route"), Label("status")),
)

CONTROL_LEADS = _gauge("control_leads", "1 while this control process leads.", Source.CONTROL)
CONTROL_SECONDS = _seconds(
    "control_part",
    "Time of a part of a turn.",
    Source.CONTROL,
    buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2.5, 10.0),
    labels=(_PART,),
)
CONTROL_MOVES = _counter(
    "control_moves",
    "What parts of turns moved or sent; of the part rescue, chunks of workers that went silent.",
    Source.CONTROL,
    labels=(_PART,),
)
CONTROL_FAILURES = _counter(
    "control_part_failures",
    "Parts of turns that an exception ended.",
    Source.CONTROL,
    labels=(_PART,),
)
QUEUE_MESSAGES = _gauge(
    "queue_messages",
    "Messages in a queue of the broker when the leader last looked.",
    Source.CONTROL,
    labels=(Label("queue"),),
)
WEBHOOK_TRIES = _counter(
    "webhook_tries",
    "Tries to deliver a webhook.",
    Source.CONTROL,
    labels=(Label("outcome", ("delivered", "failed")),),
)

TASK_SECONDS = _seconds(
    "task",
    "Time of a task of Celery, by how it ended; postponed ones are tried again.",
    *_WORKERS,
    buckets=(0.1, 1.0, 10.0, 60.0, 600.0),
    labels=(_TASK, _OUTCOME),
)
LEASES_LOST = _counter(
    "leases_lost",
    "Leases that another process took over, or that could not be renewed, while the job went on.",
    *_WORKERS,
)
PROCESS_DEATHS = _counter(
    "worker_process_deaths",
    "Processes of a pool that died while they had a chunk.",
    Source.POOL,
)
CHUNK_SECONDS = _seconds(
    "chunk_stage",
    "Time of chunks by stage; tokenize is within compute, beside the device.",
    Source.POOL,
    buckets=(0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0),
    labels=(Label("stage", tuple(ChunkStage)),),
)
ROWS = _counter(
    "rows",
    "Rows of committed chunks; a retry counts those that it computed.",
    Source.POOL,
    labels=(_POOL, _KIND, Label("outcome")),
)
ERROR_ROWS = _counter(
    "error_rows",
    "Error rows of committed chunks by code.",
    Source.POOL,
    labels=(Label("code", tuple(RowCode)),),
)
TOKENS = _counter(
    "tokens",
    "Tokens that the models read and wrote, of committed chunks.",
    Source.POOL,
    labels=(_POOL, _KIND),
)
DEVICE_TOKENS = _counter(
    "device_tokens",
    "Tokens in batches of forward passes: of texts, and the padding beside them.",
    Source.POOL,
    labels=(Label("what", tuple(Tokens)),),
)
ENGINES = _counter(
    "engine_uses",
    "Uses of an engine: one that was loaded already, or had to be loaded.",
    Source.POOL,
    labels=(Label("outcome", ("cached", "loaded")),),
)
ENGINES_LOADED = _gauge("engines_loaded", "Engines in memory.", Source.POOL)
DEVICE_MEMORY = _gauge(
    "device_memory_bytes",
    "Memory of the processes of this worker on a device; of the CPU: their resident memory.",
    Source.POOL,
    labels=(Label("device"),),
)

TRAINING_STEPS = _counter(
    "training_steps", "Optimizer steps of runs whose rank 0 is here.", Source.HOST
)
TRAINING_STEP_SECONDS = _seconds(
    "training_step",
    "Time of an optimizer step, averaged over each report of the program.",
    Source.HOST,
    buckets=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
)
TRAINING_LOSS = _gauge(
    "training_loss", "Newest loss of the run whose rank 0 is here; NaN: there is none.", Source.HOST
)

LEDGER_UP = _fact("ledger_up", "1 if the ledger could be read for this scrape.")
LEDGER_SECONDS = _fact("ledger_read_seconds", "How long the last reading of the ledger took.")
JOBS = _fact("jobs", "Jobs that have not ended.", _STATE, _KIND, _POOL)
JOBS_ENDED = _fact("jobs_ended_last_hour", "Jobs that ended within the last hour.", _STATE, _KIND)
WAITING_JOBS = _fact(
    "waiting_jobs", "Jobs that do not move, by what they wait for.", _POOL, _REASON
)
OLDEST_WAITING = _fact(
    "oldest_waiting_seconds",
    "Age of the oldest of those jobs, since it was accepted.",
    _POOL,
    _REASON,
)
CHUNKS = _fact(
    "chunks",
    "Chunks that are not done: pending, of those sent to the queue, and leased.",
    _POOL,
    _STATE,
)
SLOTS = _fact("pool_slots", "Chunks that the workers of a pool can compute at a time.", _POOL)
SLOTS_WANTED = _fact(
    "pool_slots_wanted", "Slots that the work of a pool wants (GET /v1/pools/{pool}/demand).", _POOL
)
SLOTS_FOR_DEADLINES = _fact(
    "pool_slots_for_deadlines", "Of those, slots without which a deadline passes.", _POOL
)
HOSTS_WANTED = _fact("pool_hosts_wanted", "Training hosts that the work of a pool wants.", _POOL)
WORKERS = _fact("workers", "Workers and planners on record: heard, or silent.", _POOL, _STATE)
HOSTS = _fact("hosts", "Training hosts on record: idle, busy, draining, or silent.", _POOL, _STATE)
CONTROL_AGE = _fact("control_turn_age_seconds", "Time since a control process turned last.")
BROKER_AWAY = _fact("broker_away", "1 if the broker did not answer in the last turn of control.")
MESSAGES_REFUSED = _fact(
    "messages_refused_last_hour",
    "Different messages of the broker that workers refused or died of within the last hour.",
)
RUNS = _fact("training_runs", "Live training runs.", _POOL, _STATE)
CHECKPOINT_AGE = _fact(
    "checkpoint_age_seconds",
    "Most that the end of a live run would lose: time since its last checkpoint, or its begin.",
    _POOL,
)
SCHEDULES = _fact("schedules", "Schedules, active or paused.", _STATE)
SCHEDULE_LAG = _fact("schedule_lag_seconds", "How late the latest fire is that is due now.")
FIRES = _fact("fires_last_hour", "Fires that ended within the last hour.", _STATE)
WEBHOOK_ENDPOINTS = _fact(
    "webhook_endpoints", "Webhook endpoints: well, failing, or disabled.", _STATE
)
WEBHOOKS_PENDING = _fact("webhook_deliveries_pending", "Deliveries that wait (at most 10,000).")
WEBHOOK_AGE = _fact("webhook_oldest_pending_seconds", "Age of the oldest of those.")
STORAGE = _fact(
    "storage_bytes",
    "What the object store held when it was last measured.",
    Label("project"),
    _KIND,
)
COLLECTION_AGE = _fact("collection_age_seconds", "Time since the garbage collector ended a round.")

ALL: tuple[Metric, ...] = tuple(each for each in list(globals().values()) if type(each) is Metric)
"""In the order of this file."""
