"""Keeping a lease while work goes on, and stopping the work once the lease is lost.

A thread renews at a third of the lease, or more often. It is tied to progress: work that has not
called ``beat`` for the stall limit counts as hung, and its process ends, since nothing else ends
a device call that does not return. That holds after the lease is lost as well: a hung process must
not keep its slot.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Self

import structlog

from jobs.errors import LeaseLost
from jobs.monitoring import catalogue, meters

log = structlog.get_logger()

STALLED = 70
"""Exit status of a process that ended itself because it made no progress (EX_SOFTWARE)."""


class LeaseRenewer:
    """Renews a lease in the background; ``beat`` reports progress and raises ``LeaseLost``.

    ``renew`` returns why the lease is void, or ``None`` when it was renewed. While Postgres is away
    the lease cannot be taken; by its own clock, the renewer calls it lost a tenth before it ends.
    """

    def __init__(
        self,
        renew: Callable[[], str | None],
        *,
        duration: timedelta,
        stall: timedelta,
        every: timedelta | None = None,
        release_reason: Callable[[], str | None] = lambda: None,
    ) -> None:
        """``every``: the time between two renewals; default: a third of the lease.

        ``release_reason`` returns why to stop and release the lease although it is good, or
        ``None``.
        """
        self._renew = renew
        self._every = (every or duration / 3).total_seconds()
        self._duration = duration.total_seconds()
        self._stall = stall.total_seconds()
        self._release_reason = release_reason
        self._lost: str | None = None
        self._stop = threading.Event()
        self._beat_at = self._renewed_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="lease-renewer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def beat(self) -> None:
        """Report progress. Raises ``LeaseLost`` once there is no more reason to go on."""
        self._beat_at = time.monotonic()
        if (reason := self._lost or self._release_reason()) is not None:
            raise LeaseLost(reason)

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            if time.monotonic() - self._beat_at > self._stall:
                log.error("no progress within the stall limit, this process ends itself")
                os._exit(STALLED)
            if self._lost is None:
                self._lost = self._try_to_renew()

    def _try_to_renew(self) -> str | None:
        asked_at = time.monotonic()
        try:
            void = self._renew()
        except Exception as error:  # noqa: BLE001 - it must not end this thread
            log.warning("the lease could not be renewed", error=str(error))
            if time.monotonic() - self._renewed_at > 0.9 * self._duration:
                return lost("it could not be renewed for as long as the lease lasts")
            return None
        self._renewed_at = asked_at
        return void


def lost(reason: str) -> str:
    """The reason, as ``renew`` returns it, of a lease that is lost though its job goes on.

    It is counted; a lease that ends with its job, or while it is paused, is not lost.
    """
    meters.add(catalogue.LEASES_LOST)
    return reason
