"""Every error that Nightshift raises on purpose, as one tree.

NightshiftError
├── BadRequest            400  the request cannot be meant as it is written
│   ├── BadSpec           400  a job spec with a field that cannot be right
│   └── CorpusRefused     400  an input outside the allow-list
├── Unauthorized          401  no key, or one that is not known
├── NotFound              404  no such thing in this project
├── Conflict              409  the thing is in a state that does not allow this
├── TooLarge              413  an upload over the limit
├── JobFailure                 ends a job: its code and message become the job's
│   ├── CorpusFailure          empty, unreadable, a column that is not there
│   └── ModelFailure           a model that cannot be loaded
├── Damaged               422  stored bytes that are not what was stored
│   ├── ObjectMissing     422  no object under a key that the ledger has; a FileNotFoundError too
│   ├── PartDamaged       422  the part of a chunk, which can be computed anew
│   └── CheckpointDamaged      a checkpoint to resume from; the next run passes over it
├── StorageFault          503  the object store did not do what it must; an OSError too
│   ├── StorageAway       503  it does not answer, or is full
│   └── StorageRefused    503  it does not let this be read or written; a PermissionError too
└── LeaseLost                  somebody else owns this work now: stop, write nothing

Each leaf has a stable ``code``; a message says what must be, and what was given.
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


class CorpusRefused(BadRequest):
    code = "corpus_refused"


class Unauthorized(NightshiftError):
    status = 401
    code = "unauthorized"


class NotFound(NightshiftError):
    status = 404
    code = "not_found"


class Conflict(NightshiftError):
    status = 409
    code = "conflict"


class TooLarge(NightshiftError):
    status = 413
    code = "too_large"


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


class LeaseLost(NightshiftError):
    """The fence moved on: whatever this process holds for that work is void."""

    code = "lease_lost"
