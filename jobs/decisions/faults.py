"""Whose fault an exception is, and what follows: one table for planners, workers and hosts.

``diagnose`` finds the first rule of ``RULES`` that names the exception; ``ends`` and ``pause`` say
how often and how soon work is tried again. Classes of libraries are matched by their qualified
names, so nothing is imported for it. The table is shown in docs/faults.md.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from jobs import errors
from jobs.errors import NightshiftError


class Blame(StrEnum):
    """Whose fault an exception is."""

    ROW = "row"  # it becomes an error row
    JOB = "job"  # or its corpus's, or its model's: the job fails at once
    ENGINE = "engine"  # of our code or a library: a few tries, then the job fails
    TRANSIENT = "transient"  # it passes: tried again for as long as an outage may take
    LEASE = "lease"  # another process owns the work now: stop, write nothing


class Place(StrEnum):
    """Where an exception was raised."""

    PLANNING = "planning"
    CHUNK = "chunk"
    ROW = "row"  # a row that is computed alone
    FINALIZING = "finalizing"
    HOST = "host"  # of a training run


LONGEST_PAUSE = timedelta(seconds=60)
LEAST_TRIES = 20
"""Tries before an outage can end a job: while it is paused, or no worker lives, time passes without
any."""
UNEXPECTED = "unexpected_error"
"""The code of a job that an exception of the engine ended."""
LONGEST_MESSAGE = 1_000

MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""Words of a plain ``RuntimeError`` of CUDA, MPS and the CPU allocator."""


@dataclass(frozen=True)
class Limits:
    """Bounds of trying again."""

    tries: int  # of what is the engine's fault
    outage: timedelta  # that what is transient may last


@dataclass(frozen=True)
class Diagnosis:
    """Whose fault an exception is, with the code and message that a job would fail with."""

    blame: Blame
    code: str
    message: str


@dataclass(frozen=True)
class Rule:
    """Exceptions that are judged alike; ``classes`` are qualified names of classes or bases."""

    what: str
    classes: tuple[str, ...]
    blame: Blame
    code: str = ""  # empty: that of the exception
    elsewhere: Mapping[Place, Blame] = field(default_factory=dict)
    errnos: frozenset[int] = frozenset()  # empty: any
    sqlstates: tuple[str, ...] = ()  # beginnings; empty: any
    words: tuple[str, ...] = ()  # of the message; empty: any

    def at(self, place: Place) -> Blame:
        """Whose fault it is when raised at this place."""
        return self.elsewhere.get(place, self.blame)

    def names(self, error: BaseException) -> bool:
        """Whether the exception is one of these."""
        mro = {_qualified(kind) for kind in type(error).__mro__}
        if not mro.intersection(self.classes):
            return False
        if self.errnos and getattr(error, "errno", None) not in self.errnos:
            return False
        if self.sqlstates and not (_sqlstate(error) or "").startswith(self.sqlstates):
            return False
        return not self.words or any(word in str(error) for word in self.words)


def _qualified(kind: type) -> str:
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def _sqlstate(error: BaseException) -> str | None:
    """Postgres's code; SQLAlchemy keeps the driver's exception in ``orig``."""
    found: str | None = getattr(getattr(error, "orig", error), "sqlstate", None)
    return found


_PATHS = frozenset(
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
_MACHINE = frozenset(
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
_NETWORK = frozenset(
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
_OF_ROW = {Place.ROW: Blame.ROW}

RULES = (
    Rule(
        "the lease was lost, or the job was stopped",
        (_qualified(errors.LeaseLost),),
        Blame.LEASE,
        code=errors.LeaseLost.code,
    ),
    Rule(
        "a corpus or a model that cannot be used, named by its code",
        (_qualified(errors.JobFailure), _qualified(errors.BadRequest)),
        Blame.JOB,
    ),
    Rule(
        "a file or a model of the job that is not there any more",
        (_qualified(errors.NotFound),),
        Blame.JOB,
    ),
    Rule(
        "a damaged checkpoint: it is marked, and the next run passes over it",
        (_qualified(errors.CheckpointDamaged),),
        Blame.TRANSIENT,
    ),
    Rule(
        "a shard, a part or a corpus that is gone from storage, or has other bytes than were "
        "stored",
        (_qualified(errors.Damaged),),
        Blame.JOB,
    ),
    Rule(
        "the object store is away, full, or refuses",
        (_qualified(errors.StorageFault),),
        Blame.TRANSIENT,
    ),
    Rule(
        "a value that Postgres cannot store: too large, or with a character that it does not take",
        ("sqlalchemy.exc.DBAPIError", "psycopg.Error"),
        Blame.JOB,
        code="value_unstorable",
        sqlstates=("22", "54"),
    ),
    Rule(
        "Postgres is away, restarts, is too slow, or a lock is not free",
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
    Rule(
        "no memory is left, on the device or on the host",
        ("MemoryError", "torch.OutOfMemoryError"),
        Blame.TRANSIENT,
        code="out_of_memory",
        elsewhere=_OF_ROW,
    ),
    Rule(
        "the same, in words of an allocator",
        ("RuntimeError",),
        Blame.TRANSIENT,
        code="out_of_memory",
        elsewhere=_OF_ROW,
        words=MEMORY,
    ),
    Rule(
        "the same, of the operating system",
        ("OSError",),
        Blame.TRANSIENT,
        code="out_of_memory",
        elsewhere=_OF_ROW,
        errnos=frozenset({errno.ENOMEM}),
    ),
    Rule(
        "a repository, revision or file that the hub does not have, or does not show",
        (
            "huggingface_hub.errors.RepositoryNotFoundError",
            "huggingface_hub.errors.RevisionNotFoundError",
            "huggingface_hub.errors.EntryNotFoundError",
            "huggingface_hub.errors.HFValidationError",
        ),
        Blame.JOB,
        code="corpus_unreadable",
        elsewhere=_OF_ROW,
    ),
    Rule(
        "the network: a connection refused or cut, a time-out, a name that is not found",
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
    Rule(
        "the same, by its number",
        ("OSError",),
        Blame.TRANSIENT,
        code="network_unavailable",
        errnos=_NETWORK,
    ),
    Rule(
        "this machine: its disk is full, read-only or broken, too many files are open",
        ("OSError",),
        Blame.TRANSIENT,
        code="machine_unavailable",
        errnos=_MACHINE,
    ),
    Rule(
        "a path that is too long, not there, a folder, or not for us",
        ("OSError",),
        Blame.ENGINE,
        code="path_unusable",
        elsewhere={Place.PLANNING: Blame.JOB, **_OF_ROW},
        errnos=_PATHS,
    ),
    Rule(
        "data that a library refuses: a wrong value, a name or a time zone that it does not know",
        (
            "ValueError",
            "LookupError",
            "ArithmeticError",
            "RecursionError",
            "pyarrow.lib.ArrowException",
        ),
        Blame.ENGINE,
        code="data_refused",
        elsewhere={Place.PLANNING: Blame.JOB, **_OF_ROW},
    ),
    Rule(
        "anything else",
        ("BaseException",),
        Blame.ENGINE,
        code=UNEXPECTED,
        elsewhere=_OF_ROW,
    ),
)
"""The first that names an exception judges it."""


def diagnose(error: BaseException, *, place: Place) -> Diagnosis:
    """Whose fault the exception is when it is raised at this place."""
    rule = rule_for(error)
    blame = rule.at(place)
    code = rule.code or (error.code if isinstance(error, NightshiftError) else UNEXPECTED)
    return Diagnosis(blame, UNEXPECTED if blame is Blame.ENGINE else code, words(error))


def rule_for(error: BaseException) -> Rule:
    """The first rule that names the exception."""
    return next(rule for rule in RULES if rule.names(error))


def passes(error: BaseException) -> bool:
    """Whether the same work may go through a little later."""
    return rule_for(error).blame is Blame.TRANSIENT


def words(error: BaseException) -> str:
    """The exception in words, without the paths of this machine that an ``OSError`` carries."""
    if isinstance(error, NightshiftError):
        return error.message
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = str(error.strerror)
    text = re.sub(r"\s+", " ", text).strip()[:LONGEST_MESSAGE]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def pause(tries: int) -> timedelta:
    """How long to wait after the ``tries``-th failure: 1, 2, 4 … at most 60 seconds."""
    return min(timedelta(seconds=2 ** min(tries - 1, 10)), LONGEST_PAUSE)


def ends(blame: Blame, *, tries: int, failing_for: timedelta, limits: Limits) -> bool:
    """Whether the work is given up after its ``tries``-th failure by this blame."""
    match blame:
        case Blame.JOB:
            return True
        case Blame.ENGINE:
            return tries >= limits.tries
        case Blame.TRANSIENT:
            return tries >= LEAST_TRIES and failing_for >= limits.outage
        case Blame.LEASE | Blame.ROW:
            return False


def end_message(diagnosis: Diagnosis, *, tries: int, failing_for: timedelta) -> str:
    """What a job says that is given up: the fault, and how often and long it was tried."""
    if diagnosis.blame is Blame.JOB:
        return diagnosis.message
    seconds = round(failing_for.total_seconds())
    span = f"{tries} times in {seconds:,} s" if seconds else f"{tries} times"
    return f"{diagnosis.message} (tried {span}); `nightshift jobs retry` goes on from here"
