"""The API process: ``python -m api.server`` listens where the settings say."""

from __future__ import annotations

import os
import resource

import uvicorn

from api.server.app import create_app
from api.server.protocol import TimeLimits, protocol
from jobs import environment, logs, settings
from jobs.settings import Settings

GRACE_SECONDS = 5
"""How long a stopping server waits for streams and uploads before it cuts them."""

OTHER_FILES = 256
"""Open files of the process besides its connections: Postgres, the object store, its code."""


def main() -> None:
    """Serve until a signal ends it."""
    logs.configure()
    os.umask(environment.UMASK)
    chosen = settings.get()
    uvicorn.run(
        create_app(chosen),
        host=chosen.api_host,
        port=chosen.api_port,
        http=protocol(times(chosen), connections=connections(chosen.api_connections)),
        ws="none",
        log_config=None,
        access_log=False,
        timeout_keep_alive=chosen.api_idle_seconds,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def times(chosen: Settings) -> TimeLimits:
    """The time limits that the settings name."""
    return TimeLimits(
        head=chosen.api_head_seconds,
        stall=chosen.api_stall_seconds,
        slowest=chosen.api_slowest_bytes,
    )


def connections(wanted: int) -> int:
    """As many connections as the process may open files for; raises its limit where it can."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted + OTHER_FILES:
        soft = min(hard, wanted + OTHER_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(min(wanted, soft - OTHER_FILES), 1)


if __name__ == "__main__":
    main()
