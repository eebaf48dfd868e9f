"""Whose fault an exception is, and what follows: one table for planners, workers and hosts.

``diagnose`` applies the first rule of ``RULES`` that matches the exception; ``should_fail_job`` and
``backoff`` decide how often and how soon work is retried. Rules match the classes of libraries by
their qualified names, so this module imports none of them. docs/faults.md shows the table.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from jobs import errors
from jobs.backoff import delay
from jobs.errors import NightshiftError


class Blame(StrEnum):
    """Whose fault an exception is."""

    ROW = "row"  # it becomes an error row
    JOB = "job"  # of the job, its corpus or its model: the job fails at once
    ENGINE = "engine"  # of our code or a library: a few tries, then the job fails
    TRANSIENT = "transient"  # it passes: retried for as long as an outage may last
    LEASE = "lease"  # another process owns the work now: stop, write nothing


class Stage(StrEnum):
    """Where an exception was raised."""

    PLANNING = "planning"
    CHUNK = "chunk"
    ROW = "row"  # a row that is computed alone
    FINALIZING = "finalizing"
    HOST = "host"  # of a training run


MAX_BACKOFF = timedelta(seconds=60)
MIN_OUTAGE_TRIES = 20
"""Tries before an outage can end a job. While a job is paused or no worker is alive, time passes
without a try."""
UNEXPECTED = "unexpected_error"
"""The code of a job that fails with an exception of the engine."""
MAX_MESSAGE_CHARACTERS = 1_000

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""Phrases of the plain ``RuntimeError`` that CUDA, MPS and the CPU allocator raise."""


@dataclass(frozen=True)
class RetryLimits:
    """When retrying ends."""

    tries: int  # for a fault of the engine
    outage: timedelta  # for a transient fault


@dataclass(frozen=True)
class Diagnosis:
    """Whose fault an exception is, with the code and message of a job that fails for it."""

    blame: Blame
    code: str
    message: str


@dataclass(frozen=True)
class FaultRule:
    """Exceptions with the same blame; ``classes`` are qualified names of classes or their bases."""

    what: str
    classes: tuple[str, ...]
    blame: Blame
    code: str = ""  # empty: the exception's own
    elsewhere: Mapping[Stage, Blame] = field(default_factory=dict)
    errnos: frozenset[int] = frozenset()  # empty: any
    sqlstates: tuple[str, ...] = ()  # prefixes; empty: any
    phrases: tuple[str, ...] = ()  # one of them is in the message; empty: any message

    def blame_at(self, stage: Stage) -> Blame:
        return self.elsewhere.get(stage, self.blame)

    def matches(self, error: BaseException) -> bool:
        mro = {_qualified_name(cls) for cls in type(error).__mro__}
        if not mro.intersection(self.classes):
            return False
        if self.errnos and getattr(error, "errno", None) not in self.errnos:
            return False
        if self.sqlstates and not (_sqlstate(error) or "").startswith(self.sqlstates):
            return False
        return not self.phrases or any(phrase in str(error) for phrase in self.phrases)


def _qualified_name(cls: type) -> str:
    module = cls.__module__
    return cls.__qualname__ if module == "builtins" else f"{module}.{cls.__qualname__}"


def _sqlstate(error: BaseException) -> str | None:
    """Postgres's code; SQLAlchemy keeps the driver's exception in ``orig``."""
    sqlstate: str | None = getattr(getattr(error, "orig", error), "sqlstate", None)
    return sqlstate


_PATH_ERRNOS = frozenset(
    {
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.ELOOP,
        errno.EINVAL,
    }
)
_MACHINE_ERRNOS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
        errno.ESTALE,
        errno.EMFILE,
        errno.ENFILE,
        errno.EAGAIN,
        errno.EBUSY,
        errno.ETXTBSY,
    }
)
_NETWORK_ERRNOS = frozenset(
    {
        errno.ECONNRESET,
        errno.ECONNREFUSED,
        errno.ECONNABORTED,
        errno.EPIPE,
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.EHOSTDOWN,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.ENETRESET,
    }
)
_ROW_AT_ROW = {Stage.ROW: Blame.ROW}

RULES = (
    FaultRule(
        "the lease was lost, or the job was stopped",
        (_qualified_name(errors.LeaseLost),),
        Blame.LEASE,
        code=errors.LeaseLost.code,
    ),
    FaultRule(
        "a corpus or a model that cannot be used; the code says why",
        (_qualified_name(errors.JobFailure), _qualified_name(errors.BadRequest)),
        Blame.JOB,
    ),
    FaultRule(
        "a file or a model of the job that no longer exists",
        (_qualified_name(errors.NotFound),),
        Blame.JOB,
    ),
    FaultRule(
        "an alias that others moved during every comparison",
        (_qualified_name(errors.AliasContended),),
        Blame.TRANSIENT,
    ),
    FaultRule(
        "a damaged checkpoint: it is marked, and the next run skips it",
        (_qualified_name(errors.CheckpointDamaged),),
        Blame.TRANSIENT,
    ),
    FaultRule(
        "a shard, a part or a corpus that is missing from storage, or whose bytes have changed",
        (_qualified_name(errors.Damaged),),
        Blame.JOB,
    ),
    FaultRule(
        "the object store is unreachable or full, or refuses access",
        (_qualified_name(errors.StorageFault),),
        Blame.TRANSIENT,
    ),
    FaultRule(
        "a value that Postgres cannot store: too large, or with a character that it does not allow",
        ("sqlalchemy.exc.DBAPIError", "psycopg.Error"),
        Blame.JOB,
        code="value_unstorable",
        sqlstates=("22", "54"),
    ),
    FaultRule(
        "Postgres is unreachable, restarting or too slow, or a lock is taken",
        (
            "sqlalchemy.exc.OperationalError",
            "sqlalchemy.exc.InterfaceError",
            "sqlalchemy.exc.TimeoutError",
            "psycopg.OperationalError",
            "psycopg.InterfaceError",
        ),
        Blame.TRANSIENT,
        code="database_unavailable",
    ),
    FaultRule(
        "the device or the host is out of memory",
        ("MemoryError", "torch.OutOfMemoryError"),
        Blame.TRANSIENT,
        code="out_of_memory",
        elsewhere=_ROW_AT_ROW,
    ),
    FaultRule(
        "the same, by the message of an allocator",
        ("RuntimeError",),
        Blame.TRANSIENT,
        code="out_of_memory",
        elsewhere=_ROW_AT_ROW,
        phrases=OUT_OF_MEMORY,
    ),
    FaultRule(
        "the same, by the operating system's error number",
        ("OSError",),
        Blame.TRANSIENT,
        code="out_of_memory",
        elsewhere=_ROW_AT_ROW,
        errnos=frozenset({errno.ENOMEM}),
    ),
    FaultRule(
        "a repository, revision or file that the hub does not have, or hides",
        (
            "huggingface_hub.errors.RepositoryNotFoundError",
            "huggingface_hub.errors.RevisionNotFoundError",
            "huggingface_hub.errors.EntryNotFoundError",
            "huggingface_hub.errors.HFValidationError",
        ),
        Blame.JOB,
        code="corpus_unreadable",
        elsewhere=_ROW_AT_ROW,
    ),
    FaultRule(
        "the network: a connection refused or lost, a timeout, a host name that does not resolve",
        (
            "ConnectionError",
            "TimeoutError",
            "socket.gaierror",
            "ssl.SSLError",
            "httpx.TransportError",
            "httpx2.TransportError",
            "requests.exceptions.ConnectionError",
            "requests.exceptions.Timeout",
            "huggingface_hub.errors.HfHubHTTPError",
        ),
        Blame.TRANSIENT,
        code="network_unavailable",
    ),
    FaultRule(
        "the same, by its error number",
        ("OSError",),
        Blame.TRANSIENT,
        code="network_unavailable",
        errnos=_NETWORK_ERRNOS,
    ),
    FaultRule(
        "this machine: its disk is full, read-only or broken, or too many files are open",
        ("OSError",),
        Blame.TRANSIENT,
        code="machine_unavailable",
        errnos=_MACHINE_ERRNOS,
    ),
    FaultRule(
        "a path that is too long, missing, a folder, or not permitted",
        ("OSError",),
        Blame.ENGINE,
        code="path_unusable",
        elsewhere={Stage.PLANNING: Blame.JOB, **_ROW_AT_ROW},
        errnos=_PATH_ERRNOS,
    ),
    FaultRule(
        "data that a library refuses: a wrong value, an unknown name or time zone",
        (
            "ValueError",
            "LookupError",
            "ArithmeticError",
            "RecursionError",
            "pyarrow.lib.ArrowException",
        ),
        Blame.ENGINE,
        code="data_refused",
        elsewhere={Stage.PLANNING: Blame.JOB, **_ROW_AT_ROW},
    ),
    FaultRule(
        "anything else",
        ("BaseException",),
        Blame.ENGINE,
        code=UNEXPECTED,
        elsewhere=_ROW_AT_ROW,
    ),
)
"""The first rule that matches an exception decides."""


def diagnose(error: BaseException, *, stage: Stage) -> Diagnosis:
    """Whose fault the exception is when it is raised at this stage."""
    rule = rule_for(error)
    blame = rule.blame_at(stage)
    code = rule.code or (error.code if isinstance(error, NightshiftError) else UNEXPECTED)
    return Diagnosis(blame, UNEXPECTED if blame is Blame.ENGINE else code, describe(error))


def rule_for(error: BaseException) -> FaultRule:
    return next(rule for rule in RULES if rule.matches(error))


def is_transient(error: BaseException) -> bool:
    """Whether the same work may succeed a little later."""
    return rule_for(error).blame is Blame.TRANSIENT


def describe(error: BaseException) -> str:
    """The exception in words, without the paths of this machine that an ``OSError`` contains."""
    if isinstance(error, NightshiftError):
        return error.message
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = str(error.strerror)
    text = re.sub(r"\s+", " ", text).strip()[:MAX_MESSAGE_CHARACTERS]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def backoff(tries: int) -> timedelta:
    """How long to wait after the ``tries``-th failure: 1, 2, 4 … at most 60 seconds."""
    return timedelta(seconds=delay(tries, first=1, longest=MAX_BACKOFF.total_seconds()))


def should_fail_job(
    blame: Blame, *, tries: int, failing_for: timedelta, limits: RetryLimits
) -> bool:
    """Whether the ``tries``-th failure with this blame is the last try."""
    match blame:
        case Blame.JOB:
            return True
        case Blame.ENGINE:
            return tries >= limits.tries
        case Blame.TRANSIENT:
            return tries >= MIN_OUTAGE_TRIES and failing_for >= limits.outage
        case Blame.LEASE | Blame.ROW:
            return False


def failure_message(diagnosis: Diagnosis, *, tries: int, failing_for: timedelta) -> str:
    """Why work was given up: the fault, how often it was tried and for how long."""
    if diagnosis.blame is Blame.JOB:
        return diagnosis.message
    seconds = round(failing_for.total_seconds())
    span = f"{tries} times in {seconds:,} s" if seconds else f"{tries} times"
    return f"{diagnosis.message} (tried {span}); `nightshift jobs retry` continues from here"
