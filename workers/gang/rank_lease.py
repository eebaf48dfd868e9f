"""A held rank: a thread renews its lease, and each renewal returns control's orders."""

from __future__ import annotations

import threading
from datetime import timedelta
from types import TracebackType
from typing import Self

from jobs.errors import LeaseLost
from jobs.ledger import ranks
from jobs.ledger.ranks import Orders, RankLease
from workers.context import Context
from workers.lease_renewer import LeaseRenewer

RENEWAL = timedelta(seconds=1)
"""Time between two renewals; a lease is longer, but orders should arrive soon."""

NO_ORDERS = Orders(stop=None, stop_reason=None, port=None, all_ready=False)


class HeldRank:
    """The lease of one rank, its phase, and the orders of control."""

    def __init__(self, lease: RankLease, *, context: Context) -> None:
        self.lease = lease
        self.phase = ranks.PREPARING
        self.orders = NO_ORDERS
        self._context = context
        self._progress = threading.Event()
        self._renewer = LeaseRenewer(
            self._renew,
            duration=context.settings.lease_duration,
            stall=timedelta(seconds=context.settings.stall_seconds),
            every=min(RENEWAL, context.settings.lease_duration / 3),
        )

    def __enter__(self) -> Self:
        self._renewer.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._renewer.__exit__(kind, error, trace)

    def beat(self) -> None:
        """Heartbeat of the agent. Raises ``LeaseLost``."""
        self._renewer.beat()

    def progress(self) -> None:
        """Record that the rank's program makes progress; the next renewal writes it."""
        self._progress.set()

    def check(self) -> None:
        """Heartbeat between two steps of work. Raises ``LeaseLost`` or ``RunStopped``."""
        self.beat()
        if self.orders.stop is not None:
            raise RunStopped(self.orders.stop_reason or "asked to stop")

    def _renew(self) -> str | None:
        progress = self._progress.is_set()
        self._progress.clear()
        with self._context.sessions.begin() as session:
            orders = ranks.renew(
                session,
                self.lease,
                duration=self._context.settings.lease_duration,
                phase=self.phase,
                progress=progress,
            )
        if orders is None:
            return (
                f"rank {self.lease.rank} of run {self.lease.fence} of {self.lease.job_id} is over"
            )
        self.orders = orders
        return None


class RunStopped(LeaseLost):
    """The run was asked to stop while there was nothing to save."""
