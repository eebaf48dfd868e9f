"""The API process: ``python -m api.server`` listens where the settings say."""

from __future__ import annotations

import os

import uvicorn

from api.server.app import create_app
from jobs import environment, logs, settings

GRACE_SECONDS = 5
"""How long a stopping server waits for streams and uploads before it cuts them."""


def main() -> None:
    """Serve until a signal ends it."""
    logs.configure()
    os.umask(environment.UMASK)
    chosen = settings.get()
    uvicorn.run(
        create_app(chosen),
        host=chosen.api_host,
        port=chosen.api_port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


if __name__ == "__main__":
    main()
