"""Stopping a process (SIGSTOP) at a moment that a test needs."""

from __future__ import annotations

import os
import signal

from jobs.states import ChunkState, JobState
from jobs.tables import Chunk
from jobs.worker_names import ProcessName
from tests.support.installation import Installation
from tests.support.waiting import wait_until


def stopped_with_a_chunk(installation: Installation, job_id: str) -> tuple[int, Chunk]:
    """Stop a pool process while it holds a chunk; returns its pid and the chunk."""
    while True:
        wait_until(lambda: installation.leased(job_id), seconds=60, every=0.002)
        for chunk in installation.leased(job_id):
            assert chunk.owner is not None
            pid = ProcessName.read(chunk.owner).pid
            os.kill(pid, signal.SIGSTOP)
            with installation.sessions.begin() as session:
                now = session.get_one(Chunk, chunk.id)
            if now.state is ChunkState.LEASED and now.fence == chunk.fence:
                return pid, chunk
            os.kill(pid, signal.SIGCONT)
        assert installation.job(job_id).job.state is not JobState.SUCCEEDED
