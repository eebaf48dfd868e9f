"""How a task ended, in words, and as Celery's events and Flower show it.

A task that returns is a success for Celery. So a task whose work is not done raises, and the parent
process sends the event that fits: failed for good (FAILURE), to be tried again (RETRY; control
sends the message), not done because its job was paused or cancelled (REVOKED), or because another
process has the work or did it (SUPERSEDED, a state of ours). Where something failed, the reason
stands in the traceback too, which is where Flower's readers look.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import WorkerLostError
from celery import Task
from celery.worker.request import Request
from celery.worker.state import task_ready

from jobs.errors import ControlFlow
from jobs.monitoring import catalogue, meters
from jobs.queries.unclaimed import Unclaimed
from workers import endings


class TaskState(StrEnum):
    """What happened to the work of a task."""

    DONE = "done"
    FAILED = "failed"
    POSTPONED = "postponed"
    STOPPED = "stopped"
    SUPERSEDED = "superseded"


@dataclass(frozen=True)
class Outcome:
    """How a task ended."""

    state: TaskState
    words: str

    @property
    def done(self) -> bool:
        """Whether the work was done."""
        return self.state is TaskState.DONE


DONE = Outcome(TaskState.DONE, "done")

_HOW_IT_DIED = re.compile(r"Worker exited prematurely: (.+?)\.?(?: Job: \d+\.?)?$")


def unclaimed(why: Unclaimed) -> Outcome:
    """Another process has the work or did it, or its job does not want it now."""
    return Outcome(_not_ours(why), f"not claimed: {why.reason}")


def stopped(why: Unclaimed, reason: str) -> Outcome:
    """The work ended under way, without a fault: it was taken over, or is not wanted now."""
    return Outcome(_not_ours(why), f"stopped: {reason}")


def _not_ours(why: Unclaimed) -> TaskState:
    return TaskState.SUPERSEDED if why.superseded else TaskState.STOPPED


class Undone(ControlFlow):
    """Ends a task whose work is not done; ``str`` is why."""


class Failed(Undone):
    """The work failed, and is not tried again."""


class Postponed(Undone):
    """The work failed, and control sends its message again."""


class Stopped(Undone):
    """The work is not wanted now."""


class Superseded(Undone):
    """The message came late: another process has the work or did it."""


_RAISED: Mapping[TaskState, type[Undone]] = {
    TaskState.FAILED: Failed,
    TaskState.POSTPONED: Postponed,
    TaskState.STOPPED: Stopped,
    TaskState.SUPERSEDED: Superseded,
}


_STATE_OF = {kind: state for state, kind in _RAISED.items()}
_RAISED_ELSE = "raised"
"""As metrics name a task that raised any other exception."""


def raise_unless_done(outcome: Outcome) -> str:
    """The result of a task that did its work. Raises ``Undone`` for any other."""
    if outcome.state in _RAISED:
        raise _RAISED[outcome.state](outcome.words)
    return outcome.words


class OutcomeRequest(Request):  # type: ignore[misc]
    """A message as the parent process sees it, which sends the events of its task."""

    _death: str | None = None
    """How the process that worked on it died; ``None``: it did not."""

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Send the event of work that is not done; any other exception is Celery's business."""
        error = raised(exc_info)
        ended = endings.reason(self.worker_pid) if isinstance(error, WorkerLostError) else None
        if ended is not None:
            error = Stopped(f"stopped: {ended}")
        if not isinstance(error, Undone):
            self._death = death(error)
            return super().on_failure(exc_info, *args, **kwargs)
        task_ready(self)
        words = str(error)
        match error:
            case Failed():
                self.send_event("task-failed", exception=words, result=words, traceback=words)
            case Postponed():
                self.send_event("task-retried", exception=words, result=words, traceback=words)
            case Superseded():
                self.send_event("task-superseded", result=words)
            case _:
                self.send_event(
                    "task-revoked", terminated=False, signum=None, expired=False, result=words
                )
        return None

    def send_event(self, name: str, **fields: Any) -> None:
        """Send an event of the task; one about a process that died says how it died."""
        if name == "task-failed" and self._death is not None:
            fields |= {"exception": self._death, "result": self._death, "traceback": self._death}
        super().send_event(name, **fields)


class OutcomeTask(Task):  # type: ignore[misc]
    """Makes Celery use ``OutcomeRequest``, and log an ``Undone`` in one line."""

    Request = f"{OutcomeRequest.__module__}:{OutcomeRequest.__qualname__}"
    throws = (Undone,)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task, and count how it ended and how long it took."""
        begun, state = time.perf_counter(), _RAISED_ELSE
        try:
            result = self.run(*args, **kwargs)
        except Undone as undone:
            state = _STATE_OF[type(undone)]
            raise
        else:
            state = TaskState.DONE
            return result
        finally:
            seconds = time.perf_counter() - begun
            meters.observe(catalogue.TASK_SECONDS, seconds, task=self.name, state=state)


def raised(exc_info: Any) -> BaseException:
    """The exception, as billiard wraps it since 4.3 or not."""
    error: BaseException = exc_info.exception
    return error.exc if isinstance(error, ExceptionWithTraceback) else error


def death(error: BaseException) -> str | None:
    """How a process died that left this exception in its place; ``None``: it lives."""
    if isinstance(error, WorkerLostError):
        found = _HOW_IT_DIED.search(str(error))
        return f"its process died: {found[1] if found else error}"
    if isinstance(error, SystemExit):
        return f"its process ended itself: exit code {error.code}"
    return None


class PlainLog(logging.Filter):
    """Lets Celery log work that is not done in one plain line, without a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the records of ``Undone``; all of them pass."""
        context = getattr(record, "data", None)
        if isinstance(context, dict) and context.get("description") == "raised expected":
            plain = {name: context[name] for name in ("id", "name", "args", "exc")}
            record.msg, record.args = "Task %(name)s[%(id)s] was not done: %(exc)s", plain
            record.__dict__["data"] = plain
        return True


def log_plainly() -> None:
    """Let Celery's log of tasks pass through ``PlainLog``."""
    log = logging.getLogger("celery.app.trace")
    log.filters = [PlainLog()]
