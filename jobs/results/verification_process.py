"""The child of ``jobs.results.verifier``: ``python -m jobs.results.verification_process``.

It reads the job and the settings from its input and writes one JSON object: a report or an error.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.errors import NightshiftError

NICENESS = 10
"""On Linux a tenth of the API's share of a processor that both want."""


def main() -> int:
    os.nice(NICENESS)  # before what follows is imported
    from jobs import logs, parent_death  # noqa: PLC0415

    parent_death.watch_parent()
    logs.configure()
    task = json.loads(sys.stdin.buffer.read())
    json.dump(_answer(**task), sys.stdout)
    return 0


def _answer(*, job_id: str, settings: dict[str, Any]) -> dict[str, Any]:
    from jobs import database, objects  # noqa: PLC0415
    from jobs.errors import JobFailure, NightshiftError  # noqa: PLC0415
    from jobs.results import verification  # noqa: PLC0415
    from jobs.settings import Settings  # noqa: PLC0415

    chosen = Settings(**settings)
    engine = database.connect(chosen.database_url, pool_size=1, name="verification")
    store = objects.connect(chosen.object_store_url)
    try:
        report = verification.verify(database.sessions(engine), store, job_id, settings=chosen)
    except JobFailure as failure:  # the request was sound; what it points at is not
        return _error(failure, status=422)
    except NightshiftError as error:
        return _error(error, status=error.status)
    except database.MAY_PASS as error:
        return {"away": str(getattr(error, "orig", None) or error)}
    return {"report": dataclasses.asdict(report)}


def _error(error: NightshiftError, *, status: int) -> dict[str, Any]:
    fields = {"message": error.message, "code": error.code, "param": error.param}
    return {"error": {**fields, "status": status}}


if __name__ == "__main__":
    sys.exit(main())
