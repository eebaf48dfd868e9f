"""Verification in a process of its own, so that the requests of others do not wait for it (P12).

A recount takes a processor for as long as the corpus is long. In a thread of the API it would take
turns with every other request; its own process (``jobs.results.verification_process``) has a low
priority and memory of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import psycopg
import sqlalchemy as sa

from jobs import environment
from jobs.errors import NightshiftError
from jobs.results.verification import VerificationReport
from jobs.settings import Settings


class VerificationFailed(NightshiftError):
    """What the other process raised, with its status, code and message."""

    def __init__(self, message: str, *, status: int, code: str, param: str | None = None) -> None:
        super().__init__(message, code=code, param=param)
        self.status = status


def verify(job_id: str, *, settings: Settings) -> VerificationReport:
    """``verification.verify`` in another process.

    Raises ``VerificationFailed``, and as elsewhere ``OperationalError`` if Postgres is away.
    """
    task = {"job_id": job_id, "settings": settings.model_dump(mode="json")}
    done = subprocess.run(
        [sys.executable, "-m", "jobs.results.verification_process"],
        input=json.dumps(task).encode(),
        stdout=subprocess.PIPE,
        env=_environment(),
        check=False,
        start_new_session=True,
    )
    if done.returncode < 0:
        raise VerificationFailed(
            f"the process that recounts was ended by signal {-done.returncode}; try again",
            status=503,
            code="verification_ended",
        )
    if done.returncode > 0:
        raise RuntimeError("the process that recounts failed; its trace is above this line")
    answer: dict[str, Any] = json.loads(done.stdout)
    if "away" in answer:
        raise sa.exc.OperationalError(None, None, psycopg.OperationalError(answer["away"]))
    if "error" in answer:
        raise VerificationFailed(**answer["error"])
    report = answer["report"]
    return VerificationReport(**{**report, "problems": tuple(report["problems"])})


def _environment() -> dict[str, str]:
    """What opening a corpus and the object store needs; the settings come through a pipe."""
    groups = (environment.SYSTEM, environment.PYTHON, environment.NETWORK)
    needed = environment.chosen(os.environ, *groups, environment.HUB, environment.OBJECTS)
    return needed | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
