"""What an operator may ask of a worker, and how far that is; pure (docs/flower.md)."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum


class OrderAction(StrEnum):
    """What is asked of a worker."""

    SHUT_DOWN = "shut_down"  # drain and end, as after SIGTERM
    RESTART_POOL = "restart_pool"  # end each process and start another in its place
    GROW = "grow"  # start more processes
    SHRINK = "shrink"  # end some
    END_PROCESS = "end_process"  # that of a task, if it still works on it


class OrderState(StrEnum):
    """How far an order is."""

    WAITING = "waiting"
    TAKEN = "taken"  # its worker carries it out, or has died of it
    DONE = "done"
    REFUSED = "refused"  # by the worker, which says why
    EXPIRED = "expired"  # its worker did not take it in time


OPEN = frozenset({OrderState.WAITING, OrderState.TAKEN})

PATIENCE = timedelta(seconds=60)
"""An order that was not taken for so long is void: its worker comes back to other times."""

GRACE = timedelta(seconds=15)
"""How long a process may still take to stop by itself after its work was released."""

MOST_PROCESSES = 64
"""Of one worker, however much it is grown."""

OF_POOLS = frozenset({OrderAction.RESTART_POOL, OrderAction.GROW, OrderAction.SHRINK})
"""Not for a training host, which has one process, and in it the rank of a run."""

TOUCHES_WORK = frozenset({OrderAction.SHUT_DOWN, OrderAction.RESTART_POOL, OrderAction.SHRINK})
"""These release what the worker holds, so that the history of its jobs names who asked."""

WORDS = {
    OrderAction.SHUT_DOWN: "shut down",
    OrderAction.RESTART_POOL: "restart the pool",
    OrderAction.GROW: "grow the pool",
    OrderAction.SHRINK: "shrink the pool",
    OrderAction.END_PROCESS: "end a process",
}
