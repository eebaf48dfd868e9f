"""What is done in the seven nights, by public commands, one step after another.

A fire is let go by raising ``max_fires`` of its schedule by one: the next fire time of the calendar
is two seconds away at most, and no other comes before the night is over, however slow the machine.
Nothing here waits for a time: each step waits for the state that the one before must lead to.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from api.cli import console
from api.cli.failures import FAILED, Failure
from api.cli.nightly import facts
from api.cli.nightly.arrivals import SOURCE, Arrivals
from api.cli.nightly.facts import ALIAS, LABELLING, MODEL, TRAINING, Told
from api.cli.nightly.installation import Installation
from api.cli.nightly.nights import NIGHTS, Course, Night
from api.cli.nightly.receiver import Receiver
from api.client import FINAL, Answer
from jobs.schedules.states import OPEN, FireState
from jobs.webhooks.events import EventType

T = TypeVar("T")

PATIENCE_SECONDS = 900.0
"""How long a step waits for its state before the example gives up."""

LOOK_SECONDS = 0.1

KILLED = ("control", "host", "pool")
"""Services that are killed in the middle of a night."""

EVENTS = (
    EventType.FIRE_FAILED,
    EventType.FIRE_SKIPPED,
    EventType.FIRE_MISSED,
    EventType.MODEL_PROMOTED,
    EventType.MODEL_REJECTED,
)

PACE = ("--every", "2s", "--catch-up", "all")
RECIPE = (
    *("--epochs", "2", "--batch-rows", "8", "--learning-rate", "2e-4", "--max-tokens", "32"),
    *("--metric", "loss", "--checkpoint-steps", "40"),
)
"""Small steps for so few rows; the first words of a documentation string say the most about it."""

GATE = (
    *("--promote", ALIAS, "--promote-on", f"sql:{SOURCE}", "--promote-metric", "loss"),
    *("--promote-min-rows", "30", "--promote-keep-rejected", "3"),
)


class Story:
    """The nights, and what only the one who was there knows."""

    def __init__(
        self, installation: Installation, arrivals: Arrivals, receiver: Receiver, *, base: Path
    ) -> None:
        """``base``: the folder of the model that the first version is trained from."""
        self._base = base
        self._installation = installation
        self._client = installation.client
        self._arrivals = arrivals
        self._receiver = receiver
        self._schedules: set[str] = set()
        self._killed: dict[str, int] = {}
        self._successors: Mapping[str, int] = {}
        self._waited: str | None = None
        self._verified: dict[str, bool] = {}

    @property
    def incoming(self) -> str:
        """The URI of the folder of what arrives."""
        return f"{self._arrivals.incoming.as_uri()}/"

    def told(self) -> Told:
        """What was seen so far."""
        return Told(
            killed=self._killed,
            successors=self._successors,
            waited=self._waited,
            verified=self._verified,
            events=tuple(map(_event, self._receiver.events)),
        )

    def tell(self) -> None:
        """Everything, from the first version to the last check. Raises ``Failure``."""
        self._set_up()
        for night in NIGHTS:
            match night.course:
                case Course.KILLED:
                    self._killed_night(night)
                case Course.OVERLAPPED:
                    self._two_nights(night, NIGHTS[night.number])
                case Course.OVERLAPPING:
                    continue  # it was told with the night before
                case _:
                    self._night(night)
        self._verify()
        self._await_events()

    def _set_up(self) -> None:
        self._arrivals.prepare()
        _heading("before the first night: who is told, how long things are kept, a first version")
        events = (word for event in EVENTS for word in ("--event", event.value))
        made = self._installation.ask("webhooks", "create", self._receiver.url, *events)
        self._receiver.secret = made["signing_secret"]
        _say(f"{made['id']} receives {len(EVENTS)} types of events")
        self._installation.run("retention", "set", "--jobs", "30d", "--checkpoints", "7d")
        first = ("finetune", str(self._arrivals.first), "--base", str(self._base), *RECIPE)
        named = ("--name", MODEL, "--promote", ALIAS)
        made = self._installation.ask(*first, *named, "--no-watch")
        ended = self._client.wait(made["id"])
        if ended["state"] != "succeeded":
            raise Failure(f"{made['id']} {ended['state']}: {ended['error']}", code=FAILED)
        _say(f"{made['id']} succeeded: {ended['output']['promotion']['reason']}")

    def _night(self, night: Night) -> None:
        self._begin(night)
        self._end(TRAINING, night)
        self._label(night)

    def _killed_night(self, night: Night) -> None:
        self._begin(night)
        self._kill(night)
        self._end(TRAINING, night)
        self._label(night)
        self._successors = self._started_again()

    def _two_nights(self, night: Night, following: Night) -> None:
        """The fine-tune of the first one has not ended when the second one is due."""
        self._begin(night, fires=following.number)
        self._overlap(night, following)
        self._end(TRAINING, night)
        self._label(night)
        self._arrivals.add_checked(following)
        self._end(TRAINING, following)
        self._label(following)

    def _begin(self, night: Night, *, fires: int | None = None) -> None:
        """Let its rows arrive, and its fire go; ``fires``: later ones as well, up to this one."""
        _heading(f"night {night.number}, {night.day}: {night.story}")
        self._arrive(night)
        self._arrivals.add_checked(night)
        self._let_go(TRAINING, fires or night.number)

    def _arrive(self, night: Night) -> None:
        self._arrivals.write_objects(night)
        if night.course is Course.REPAIRED:
            before = NIGHTS[night.number - 2]
            self._arrivals.correct(before)
            _say(f"  {before.flipped}: written again, with the right labels")
        for name, rows in night.objects.items():
            _say(f"  {name}: {rows} rows")

    def _kill(self, night: Night) -> None:
        """Kill what works on the fine-tune as soon as it has a checkpoint to go on from."""
        job_id = self._job(night)
        _until(lambda: self._is_under_way(job_id), f"the first checkpoint of {job_id}")
        self._killed = self._installation.kill(KILLED)
        for name, pid in self._killed.items():
            _say(f"  SIGKILL to {name}, process {pid}")

    def _is_under_way(self, job_id: str) -> bool:
        return bool(self._client.checkpoints(job_id)) or self._client.get(job_id)["state"] in FINAL

    def _started_again(self) -> dict[str, int]:
        """The processes in the place of those that were killed, once all are there."""

        def successors() -> dict[str, int] | None:
            pids = self._installation.pids
            found = {name: pids.get(name) for name in self._killed}
            there = {name: pid for name, pid in found.items() if pid is not None}
            is_new = all(there.get(name) not in {None, pid} for name, pid in self._killed.items())
            return there if is_new else None

        return _until(successors, "every killed process to be started again")

    def _overlap(self, night: Night, following: Night) -> None:
        """Let rows of the next night arrive when this one has taken its own and the next waits."""
        job_id = self._job(night)
        _until(lambda: list(self._client.inputs(job_id)), f"what {job_id} takes")
        waiting = _until(lambda: self._fire(TRAINING, following.number), "the next night")
        if waiting["state"] == FireState.BUFFERED:
            self._waited = waiting["reason"]
        _say(f"  night {following.number} is {waiting['state']}: {waiting['reason']}")
        _heading(f"night {following.number}, {following.day}: {following.story}")
        self._arrive(following)

    def _let_go(self, schedule: str, fires: int) -> None:
        """Let the schedule go on to this number of fires."""
        most = ("--max-fires", str(fires))
        if schedule in self._schedules:
            self._installation.run("schedules", "edit", schedule, *most)
            return
        command = self._commands()[schedule]
        self._installation.run("schedules", "create", schedule, *PACE, *most, *command)
        self._schedules.add(schedule)

    def _commands(self) -> dict[str, tuple[str, ...]]:
        """How each schedule deals with overlaps, and what its fires submit."""
        champion = f"{MODEL}@{ALIAS}"
        training = (
            *("--overlap", "buffer_one", "--"),
            *("finetune", f"{self.incoming}day=*/*.jsonl"),
            *("--since", "last_promoted", "--if-empty", "skip"),
            *("--base", champion, "--name", MODEL, "--labels", champion),
            *RECIPE,
            *GATE,
        )
        labelling = (
            *("--", "classify", f"sql:{SOURCE}", "--text-column", "text", "--id-column", "id"),
            *("--since", "last_success", "--if-empty", "skip", "--model", champion),
        )
        return {TRAINING: training, LABELLING: labelling}

    def _label(self, night: Night) -> None:
        self._let_go(LABELLING, night.number)
        self._end(LABELLING, night)

    def _end(self, schedule: str, night: Night) -> None:
        """Wait until the fire of the night has ended, and say how."""
        what = f"the fire {night.number} of {schedule} to end"
        fire = _until(lambda: self._fire(schedule, night.number, ended=True), what)
        jobs = ", ".join(job["id"] for job in fire["jobs"]) or "no job"
        reason = f": {fire['reason']}" if fire["reason"] else ""
        _say(f"  night {night.number}, {schedule}: {fire['state']}, {jobs}{reason}")

    def _job(self, night: Night) -> str:
        """The fine-tune of the night."""
        fire = _until(
            lambda: self._fire(TRAINING, night.number, has_job=True), f"night {night.number}"
        )
        return str(fire["jobs"][0]["id"])

    def _fire(
        self, schedule: str, number: int, *, ended: bool = False, has_job: bool = False
    ) -> Answer | None:
        """The fire of this number; ``None``: it is not there yet, or not as far as asked for."""
        found = facts.fires(self._client, schedule)[number - 1 : number]
        if not found or (ended and found[0]["state"] in OPEN):
            return None
        return None if has_job and not found[0]["jobs"] else found[0]

    def _verify(self) -> None:
        _heading("every row of every bulk job has exactly one result")
        for fire in facts.fires(self._client, LABELLING):
            for job in fire["jobs"]:
                if job["state"] == "succeeded":
                    code = self._installation.run("jobs", "verify", job["id"], accepted=(0, 1))
                    self._verified[job["id"]] = code == 0

    def _await_events(self) -> None:
        """Until nothing waits for the receiver any more."""
        (endpoint,) = self._client.webhooks.list()
        _until(
            lambda: not list(self._client.webhooks.deliveries(endpoint["id"], state="pending")),
            "the receiver of webhooks",
        )


def _event(found: Answer) -> tuple[str, str]:
    """The type of an event, and the fire or the job that it is about."""
    data = found["data"]
    return found["type"], str(data["job"] if data["object"] == "model" else data["id"])


def _until(fact: Callable[[], T | None], what: str) -> T:
    """What the function finds, once that is something. Raises ``Failure``."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := fact()):
        if time.monotonic() > end:
            raise Failure(f"waited {PATIENCE_SECONDS:.0f} s for {what}", code=FAILED)
        time.sleep(LOOK_SECONDS)
    return found


def _heading(text: str) -> None:
    _say(f"\n--- {text}")


def _say(text: str) -> None:
    """A line that can be read at once, also behind a pipe."""
    console.line(text)
    sys.stdout.flush()
