"""The supervisor: starts services, starts again those that die, and stops all of them.

It decides with two pure functions, `pause` and `is_hopeless`; everything else is one loop in the
main thread. It knows nothing about what its services are.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from api.stack import logs
from api.stack.failure import StackFailure
from api.stack.service import Child, Service
from jobs import backoff
from jobs.errors import ControlFlow

TURN = 0.05
"""Seconds between two looks at the children."""
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 10.0
HEALTHY = 30.0
"""Seconds of life after which earlier deaths are forgotten."""
TRIES = 5
"""Deaths in a row at its first start after which a service is given up."""
STOPPERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StackStopped(ControlFlow):
    """Somebody asked the stack to stop while it was starting."""


def pause(deaths: int) -> float:
    """Seconds to wait before the start that follows this many deaths in a row."""
    return backoff.delay(deaths, first=FIRST_PAUSE, longest=LONGEST_PAUSE)


def is_hopeless(faults: int, *, proven: bool) -> bool:
    """Whether to give a service up; one that is proven is started again for ever."""
    return not proven and faults >= TRIES


@dataclass
class Slot:
    """One service, its child, and how it fared."""

    service: Service
    child: Child | None = None
    is_ready: bool = False
    deaths: int = 0
    """In a row."""
    faults: int = 0
    """Deaths of its own making: any before it was ready, later ones without a signal."""
    proven: bool = False
    """Whether it ever answered its probe or stayed healthy for long."""
    due: float = 0.0
    """When to start it, on the monotonic clock."""


class Supervisor:
    """The services to start, in this order; ``changed`` is called at every start."""

    def __init__(
        self, *, report: Callable[[str], None], changed: Callable[[Sequence[Slot]], None]
    ) -> None:
        self._report = report
        self._changed = changed
        self._groups: list[list[Slot]] = []
        self._must_stop = False

    @property
    def slots(self) -> list[Slot]:
        """Every service, in the order of their start."""
        return [slot for group in self._groups for slot in group]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGINT, SIGTERM and SIGHUP as the wish to stop, inside this block."""
        before = {number: signal.signal(number, self._on_signal) for number in STOPPERS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def start(self, services: Sequence[Service]) -> None:
        """Start services side by side; return when all are ready.

        Raises ``StackFailure`` when one is hopeless, ``StackStopped`` when the stack shall stop.
        """
        group = [Slot(service) for service in services]
        self._groups.append(group)
        while not all(slot.is_ready for slot in group):
            self.turn()

    def watch(self) -> None:
        """Keep the services running until somebody asks to stop."""
        try:
            while True:
                self.turn()
        except StackStopped:
            return

    def turn(self) -> None:
        """Look at every child once: start, report, bury. Raises like ``start``."""
        for slot in self.slots:
            self._tend(slot)
        if self._must_stop:
            raise StackStopped
        time.sleep(TURN)

    def stop(self) -> None:
        """Stop everything, the last group first, each within its grace."""
        for group in reversed(self._groups):
            running = [slot.child for slot in reversed(group) if slot.child]
            for child in running:
                child.ask_to_stop()
            asked = time.monotonic()
            while any(_may_finish(child, time.monotonic() - asked) for child in running):
                time.sleep(TURN)
            for child in running:
                child.kill()
        self._groups.clear()

    def _tend(self, slot: Slot) -> None:
        if slot.child is None:
            if time.monotonic() >= slot.due:
                slot.child = Child(slot.service)
                self._changed(self.slots)
        elif slot.child.ended is not None:
            self._bury(slot, slot.child)
        elif not slot.is_ready and slot.child.is_ready():
            slot.is_ready = True
            slot.proven |= slot.service.probe is not None
            self._report(_line(slot.service, slot.child))
        elif slot.is_ready and slot.child.age > HEALTHY:
            slot.deaths, slot.faults, slot.proven = 0, 0, True

    def _bury(self, slot: Slot, child: Child) -> None:
        child.kill()  # what is left of its group
        code, reason = child.ended or 0, _cause(child.ended)
        slot.deaths += 1
        slot.faults += not (slot.is_ready and code < 0)
        slot.child, slot.is_ready = None, False
        if is_hopeless(slot.faults, proven=slot.proven):
            raise StackFailure(
                f"{slot.service.name} {reason}, {slot.faults} times in a row; "
                f"the end of {slot.service.log}:\n{logs.tail(slot.service.log)}"
            )
        slot.due = time.monotonic() + pause(slot.deaths)
        self._report(
            f"{slot.service.name} {reason}; starting it again in {pause(slot.deaths):.1f} s"
        )

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._must_stop = True


def _may_finish(child: Child, waited: float) -> bool:
    return child.ended is None and waited < child.service.grace_seconds


def _line(service: Service, child: Child) -> str:
    return f"{service.name:<9} {service.address or 'started':<44} pid {child.pid:<8} {service.log}"


def _cause(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}"
