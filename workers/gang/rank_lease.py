"""Holding a rank: its lease is renewed in the background, and its orders come back with that."""

from __future__ import annotations

import threading
from datetime import timedelta
from types import TracebackType
from typing import Self

from jobs.errors import LeaseLost
from jobs.ledger import ranks
from jobs.ledger.ranks import Orders, RankLease
from workers.context import Context
from workers.lease_renewer import Keeper

EVERY = timedelta(seconds=1)
"""How often a rank asks for its orders; leases are longer."""

NO_ORDERS = Orders(stop=None, stop_reason=None, port=None, all_ready=False)


class Attendance:
    """The lease on one rank. ``beat`` raises ``LeaseLost`` once there is no reason to go on."""

    def __init__(self, held: RankLease, *, context: Context) -> None:
        self.held = held
        self.phase = ranks.PREPARING
        self.orders = NO_ORDERS
        self._context = context
        self._progress = threading.Event()
        self._keeper = Keeper(
            self._renew,
            lease=context.settings.lease,
            stall=timedelta(seconds=context.settings.stall_seconds),
            every=min(EVERY, context.settings.lease / 3),
        )

    def __enter__(self) -> Self:
        self._keeper.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._keeper.__exit__(kind, error, trace)

    def beat(self) -> None:
        """Say that the agent itself moves. Raises ``LeaseLost``."""
        self._keeper.beat()

    def progress(self) -> None:
        """Say that the rank's work moves."""
        self._progress.set()

    def check(self) -> None:
        """Between two pieces of work: raises ``LeaseLost`` or ``Stopped``."""
        self.beat()
        if self.orders.stop is not None:
            raise Stopped(self.orders.stop_reason or "asked to stop")

    def _renew(self) -> str | None:
        progress = self._progress.is_set()
        self._progress.clear()
        with self._context.sessions.begin() as session:
            orders = ranks.renew(
                session,
                self.held,
                lease=self._context.settings.lease,
                phase=self.phase,
                progress=progress,
            )
        if orders is None:
            return f"rank {self.held.rank} of run {self.held.fence} of {self.held.job_id} is over"
        self.orders = orders
        return None


class Stopped(LeaseLost):
    """The run was asked to stop while nothing was under way that must be saved."""
