"""A process that hangs while it holds a chunk: its lease is renewed, and nothing else ends it."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from jobs.states import ChunkState
from jobs.tables import Chunk
from tests.support import hanging
from tests.support.installation import Installation
from tests.support.stopped import stopped_with_a_chunk
from tests.support.waiting import wait_until

ABLE_TO_HANG = {"PYTHONPATH": os.pathsep.join([str(Path(hanging.__file__).parent), *sys.path])}
"""Variables of a worker whose processes hang at SIGUSR2."""


def hung_with_a_chunk(installation: Installation, job_id: str) -> tuple[int, Chunk]:
    """Let a process hang in a chunk of the job; returns its pid and the chunk."""
    while True:
        pid, chunk = stopped_with_a_chunk(installation, job_id)
        os.kill(pid, signal.SIGUSR2)
        os.kill(pid, signal.SIGCONT)
        if _keeps(installation, chunk):
            return pid, chunk
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # it hangs behind its commit: another one is needed


def _keeps(installation: Installation, chunk: Chunk) -> bool:
    """Whether the lease is renewed, or else given up."""
    renewed = False

    def decided() -> bool:
        nonlocal renewed
        with installation.sessions.begin() as session:
            now = session.get_one(Chunk, chunk.id)
        held = now.state is ChunkState.LEASED and now.fence == chunk.fence
        renewed = held and now.lease_expires_at != chunk.lease_expires_at
        return renewed or not held

    wait_until(decided, seconds=60)
    return renewed
