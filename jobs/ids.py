"""Public identifiers: a prefix that says what it is, and 96 random bits."""

from __future__ import annotations

import secrets

from jobs import names

JOB = "job_"
GROUP = "group_"


def job() -> str:
    """A new job id, ``job_`` and 24 hex digits."""
    return f"{JOB}{secrets.token_hex(12)}"


def group() -> str:
    """A new id of a group of jobs, ``group_`` and 24 hex digits."""
    return f"{GROUP}{secrets.token_hex(12)}"


def file() -> str:
    """A new file id, ``file-`` and 24 hex digits."""
    return f"file-{secrets.token_hex(12)}"


def run() -> str:
    """A new run id, ``run_`` and 24 hex digits."""
    return f"run_{secrets.token_hex(12)}"


def schedule() -> str:
    """A new schedule id, ``sched_`` and 24 hex digits."""
    return f"{names.SCHEDULE_PREFIX}{secrets.token_hex(12)}"


def backfill() -> str:
    """A new id of a backfill, ``backfill_`` and 24 hex digits."""
    return f"backfill_{secrets.token_hex(12)}"


def webhook_endpoint() -> str:
    """A new id of a webhook endpoint, ``we_`` and 24 hex digits."""
    return f"we_{secrets.token_hex(12)}"


def event() -> str:
    """A new id of an event that webhooks send, ``evt_`` and 24 hex digits."""
    return f"evt_{secrets.token_hex(12)}"


def key() -> str:
    """A new API key, ``ns_`` and 192 random bits in hex digits."""
    return f"ns_{secrets.token_hex(24)}"


def of_key(sha256: str) -> str:
    """The id of the key with this hash, as the table of keys computes it."""
    return f"key_{sha256[:24]}"
