"""How a task ended, in words, and as Celery's events and Flower show it.

A task that returns is a success for Celery. So a task whose work is not done raises, and the parent
process sends the event that fits: failed for good (FAILURE), to be tried again (RETRY; control
sends the message), or not done because its job was paused or cancelled, or because another process
has the work (REVOKED).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from celery import Task
from celery.worker.request import Request
from celery.worker.state import task_ready

from jobs.errors import ControlFlow
from jobs.monitoring import catalogue, meters


class TaskState(StrEnum):
    """What happened to the work of a task."""

    DONE = "done"
    FAILED = "failed"
    POSTPONED = "postponed"
    STOPPED = "stopped"


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


def unclaimed(reason: str) -> Outcome:
    """Another process has the work or did it, or its job does not want it now."""
    return Outcome(TaskState.STOPPED, f"not claimed: {reason}")


class Undone(ControlFlow):
    """Ends a task whose work is not done; ``str`` is why."""


class Failed(Undone):
    """The work failed, and is not tried again."""


class Postponed(Undone):
    """The work failed, and control sends its message again."""


class Stopped(Undone):
    """The work is not wanted now, or not of this process."""


_RAISED: Mapping[TaskState, type[Undone]] = {
    TaskState.FAILED: Failed,
    TaskState.POSTPONED: Postponed,
    TaskState.STOPPED: Stopped,
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

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Send the event of work that is not done; any other exception is Celery's business."""
        error = raised(exc_info)
        if not isinstance(error, Undone):
            return super().on_failure(exc_info, *args, **kwargs)
        task_ready(self)
        words = str(error)
        match error:
            case Failed():
                self.send_event("task-failed", exception=words, result=words, traceback="")
            case Postponed():
                self.send_event("task-retried", exception=words, result=words, traceback="")
            case _:
                self.send_event(
                    "task-revoked", terminated=False, signum=None, expired=False, result=words
                )
        return None


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
