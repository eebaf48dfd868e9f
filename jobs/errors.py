"""Every error that Nightshift raises on purpose, as one tree.

NightshiftError
├── BadRequest            400  the request cannot be meant as it is written
│   ├── BadSpec           400  a job spec with a field that cannot be right
│   ├── KeyReused         422  an Idempotency-Key that was sent with another body
│   ├── UnknownParameter  422  a field of a query that the route does not have
│   └── CorpusRefused     400  an input outside the allow-list
├── Unauthorized          401  no key, or one that is not known
├── Forbidden             403  the key does not have the scope that this needs
├── NotFound              404  no such thing in this project
├── Conflict              409  the thing is in a state that does not allow this
│   └── JobFolded         409  chunks of the job must unfold first (``jobs.folding``)
├── TooLarge              413  an upload over the limit
├── FormRefused           403  a form of the page from elsewhere, or where it is read-only
├── DatabaseAway          503  Postgres does not answer a page
├── QuotaExceeded         429  the project holds as much as it may
├── TooMany               429  more of the API than one caller may hold at a time
├── RangeUnsatisfiable    416  a range of bytes behind the end of an object
├── JobFailure                 ends a job: its code and message become the job's
│   ├── CorpusFailure          empty, unreadable, a column that is not there
│   └── ModelFailure           a model that cannot be loaded
├── Damaged               422  stored bytes that are not what was stored
│   ├── ObjectMissing     422  no object under a key that the ledger has; a FileNotFoundError too
│   ├── PartDamaged       422  the part of a chunk, which can be computed again
│   └── CheckpointDamaged      a checkpoint to resume from; the next run passes over it
├── StorageFault          503  the object store did not do what it must; an OSError too
│   ├── StorageAway       503  it does not answer, or is full
│   └── StorageRefused    503  it does not let this be read or written; a PermissionError too
├── AliasContended             an alias that others moved during every comparison
├── ApiError                   of the client: what the API refused, or that it does not answer
├── StackFailure               a service of ``nightshift up`` that cannot be started
└── LeaseLost                  somebody else owns this work now: stop, write nothing

ControlFlow                    caught where it is meant to be; no user ever sees one
├── AliasMoved                 an alias has moved since it was compared: compare again
├── BrokerAway                 Redis does not answer: this turn of control sends nothing more
├── CheckpointUnusable         this program cannot resume from it: try the one before
├── CommandRefused             Redis answered a command of a check with an error
├── Failure                    ends a command of the command line with a line and an exit code
├── LeadershipLost             another control process leads: stop turning
├── DeviceFailed               no row of this process can be computed any more
├── ProgramUnfinished          a program of a rank failed, stalled or was stopped
├── Refused                    a message from the broker on which no worker acts
├── SampleRowFailed            a sample row cannot be computed, even alone
├── StreamOver                 a client has seen all that a stream of events will ever have
├── StackStopped               a signal while the stack was starting
├── TimeLimit                  Python code of a model took too long
├── TrainingStopped            asked to stop: save, and leave
├── Undone                     ends a task whose work is not done, so that Celery's events say so
└── Unfit                      a conversation that the template cannot render; a ValueError too

Each leaf of the first tree has a stable ``code``; a message says what must be, and what was given.
Leaves with one place that raises them are defined there.
"""

from __future__ import annotations


class NightshiftError(Exception):
    """The root: catch it to catch all that is meant to be caught."""

    status = 500
    code = "internal_error"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.param = param


class BadRequest(NightshiftError):
    status = 400
    code = "bad_request"


class BadSpec(BadRequest):
    code = "bad_spec"


class KeyReused(BadRequest):
    status = 422
    code = "idempotency_key_reused"


class UnknownParameter(BadRequest):
    status = 422
    code = "unknown_parameter"


class CorpusRefused(BadRequest):
    code = "corpus_refused"


class Unauthorized(NightshiftError):
    status = 401
    code = "unauthorized"


class Forbidden(NightshiftError):
    status = 403
    code = "scope_missing"


class NotFound(NightshiftError):
    status = 404
    code = "not_found"


class Conflict(NightshiftError):
    status = 409
    code = "conflict"


class JobFolded(Conflict):
    code = "job_folded"

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"the chunks of {job_id} are folded, and others fold them again: try later"
        )
        self.job_id = job_id


class TooLarge(NightshiftError):
    status = 413
    code = "too_large"


class QuotaExceeded(NightshiftError):
    status = 429
    code = "quota_exceeded"


class RangeUnsatisfiable(NightshiftError):
    status = 416
    code = "range_unsatisfiable"

    def __init__(self, message: str, *, size: int) -> None:
        super().__init__(message, param="range")
        self.size = size


class JobFailure(NightshiftError):
    """Ends the job with this code and message."""

    code = "job_failed"


class CorpusFailure(JobFailure):
    code = "corpus_unreadable"


class ModelFailure(JobFailure):
    code = "model_unreadable"


class Damaged(NightshiftError):
    status = 422
    code = "damaged"


class ObjectMissing(Damaged, FileNotFoundError):
    code = "object_missing"


class PartDamaged(Damaged):
    def __init__(self, message: str, *, chunk_id: int, key: str) -> None:
        super().__init__(message)
        self.chunk_id = chunk_id
        self.key = key


class CheckpointDamaged(Damaged):
    code = "checkpoint_damaged"


class StorageFault(NightshiftError, OSError):
    status = 503
    code = "storage_unavailable"


class StorageAway(StorageFault):
    pass


class StorageRefused(StorageFault, PermissionError):
    code = "storage_refused"


class AliasContended(NightshiftError):
    code = "alias_contended"


class LeaseLost(NightshiftError):
    """The fence moved on: whatever this process holds for that work is void."""

    code = "lease_lost"


class ControlFlow(Exception):
    """The root of what only directs a process: not an error, and never shown."""
