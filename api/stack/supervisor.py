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
STOPPERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Ask for an end. SIGINT for the second time, or SIGQUIT, asks for an end at once."""


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
        self._is_hurried = False
        self._has_said_what_is_lost = False

    @property
    def slots(self) -> list[Slot]:
        """Every service, in the order of their start."""
        return [slot for group in self._groups for slot in group]

    @property
    def patience(self) -> float:
        """Seconds that a clean end takes at most."""
        return sum(
            max(slot.service.grace_seconds for slot in stage)
            for group in self._groups
            for stage in _stages(group)
        )

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take ``STOPPERS`` as the wish to stop, inside this block."""
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

    def stop(self, *, lost: Callable[[], Sequence[str]] = tuple) -> None:
        """Stop everything, the last group first, a stage of it at a time, each within its grace.

        ``lost`` says in words what an end at once loses; it is asked when somebody wants one.
        """
        for group in reversed(self._groups):
            for stage in _stages(group):
                self._end([slot.child for slot in reversed(stage) if slot.child], lost=lost)
        self._groups.clear()

    def _end(self, children: Sequence[Child], *, lost: Callable[[], Sequence[str]]) -> None:
        asked, running, hurried = time.monotonic(), list(children), False
        for child in running:
            child.ask_to_stop()
        while running:
            waited = time.monotonic() - asked
            if self._is_hurried and not hurried:
                hurried = True
                for line in self._said_once(lost):
                    self._report(line)
            for child in [each for each in running if not each.may_finish(waited, hurried=hurried)]:
                running.remove(child)
                self._report(_farewell(child, waited))
                child.kill()
            time.sleep(TURN)

    def _said_once(self, lost: Callable[[], Sequence[str]]) -> Sequence[str]:
        if self._has_said_what_is_lost:
            return ()
        self._has_said_what_is_lost = True
        return lost()

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

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        again = number == signal.SIGINT and self._must_stop
        self._is_hurried |= again or number == signal.SIGQUIT
        self._must_stop = True


def _stages(group: Sequence[Slot]) -> list[list[Slot]]:
    """The services of a group by the stage of their end."""
    numbers = sorted({slot.service.stop_stage for slot in group})
    return [[slot for slot in group if slot.service.stop_stage == each] for each in numbers]


def _farewell(child: Child, waited: float) -> str:
    how = "was killed" if child.ended is None else "ended"
    return f"{child.service.name:<9} {how} after {waited:.1f} s"


def _line(service: Service, child: Child) -> str:
    return f"{service.name:<9} {service.address or 'started':<44} pid {child.pid:<8} {service.log}"


def _cause(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}"
