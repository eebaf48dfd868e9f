"""Training jobs for tests: small corpora, specs with defaults, and queries of their results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from jobs.ledger import controls
from jobs.lookups import predicates
from jobs.queries.jobs import JobView
from jobs.states import ACTIVE, LIVE_RUN, JobState
from jobs.tables import Checkpoint, Event, Host, Job, ModelVersion, Point, Rank, Run
from tests.support.installation import PROJECT, Installation, Process
from tests.support.waiting import wait_until

WORDS = {
    "sports": ("team", "match", "final", "won"),
    "science": ("galaxy", "light", "scientists", "measured"),
    "business": ("bank", "shares", "loss", "quarter"),
}


def labelled(rows: int = 240) -> list[tuple[str, str]]:
    """Labelled texts whose labels a tiny model can learn."""
    names = list(WORDS)
    corpus = []
    for number in range(rows):
        label = names[number % len(names)]
        words = WORDS[label]
        text = f"the {words[number % 4]} {words[(number // 4) % 4]} number {number}"
        corpus.append((text, label))
    return corpus


def jsonl(rows: Iterable[tuple[str, str]]) -> bytes:
    """A corpus of texts and labels."""
    lines = (json.dumps({"text": text, "label": label}) for text, label in rows)
    return "".join(f"{line}\n" for line in lines).encode()


class Trainer:
    """Submits, watches and queries training jobs of an installation."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.hosts: dict[str, Process] = {}

    def start(self, name: str, *, before: Sequence[str] = (), **env: str) -> Process:
        """Start a host, or start it again; return when it can take ranks."""
        process = self.installation.start_host(name, before=before, **env)
        self.hosts[name] = process
        wait_until(lambda: self._is_there(name, process), seconds=60)
        return process

    def submit(self, *, rows: int = 240, train: dict[str, Any] | None = None, **fields: Any) -> str:
        """A fine-tune of the tiny classifier."""
        recipe = {
            "epochs": 2,
            "batch_rows": 8,
            "learning_rate": 1e-3,
            "evaluate_steps": 20,
            "checkpoint_steps": 10,
            **(train or {}),
        }
        base = {} if "architecture" in fields else {"base": str(self.installation.model)}
        spec = {"kind": "finetune", "model": "news", "train": recipe, **base, **fields}
        return self.installation.submit(jsonl(labelled(rows)), **spec)

    def succeeded(self, job_id: str, *, seconds: float = 180) -> JobView:
        """The job, which must succeed."""
        view = self.installation.wait(job_id, seconds=seconds)
        assert view.job.state is JobState.SUCCEEDED, f"{self.history(job_id)}\n{self.logs()}"
        return view

    def logs(self) -> str:
        """The end of every log."""
        return self.installation.logs()

    def history(self, job_id: str) -> str:
        """The events of a job, for the message of a failing test."""
        with self.installation.sessions.begin() as session:
            events = session.scalars(
                sa.select(Event).where(Event.job_id == job_id).order_by(Event.id)
            )
            return "\n".join(f"{event.type} {event.data}" for event in events)

    def wait_for_step(self, job_id: str, step: int, *, seconds: float = 120) -> None:
        """Return once the live run has reached the step."""
        wait_until(lambda: self._step(job_id) >= step, seconds=seconds, every=0.05)

    def wait_for_checkpoint(self, job_id: str, *, past: int = 0, seconds: float = 120) -> None:
        """Return once a checkpoint after step ``past`` is complete."""
        wait_until(
            lambda: any(each.step > past for each in self.checkpoints(job_id)),
            seconds=seconds,
            every=0.05,
        )

    def runs(self, job_id: str) -> list[Run]:
        with self.installation.sessions.begin() as session:
            return list(
                session.scalars(sa.select(Run).where(Run.job_id == job_id).order_by(Run.number))
            )

    def live_ranks(self, job_id: str) -> list[Rank]:
        with self.installation.sessions.begin() as session:
            query = sa.select(Rank).join(Run, Run.id == Rank.run_id)
            live = query.where(Run.job_id == job_id, Run.state.in_(LIVE_RUN))
            return list(session.scalars(live.order_by(Rank.rank)))

    def checkpoints(self, job_id: str) -> list[Checkpoint]:
        with self.installation.sessions.begin() as session:
            query = sa.select(Checkpoint).where(Checkpoint.job_id == job_id)
            return list(session.scalars(query.order_by(Checkpoint.step)))

    def curve(self, job_id: str, name: str = "loss") -> dict[int, float]:
        """A metric's values by step."""
        with self.installation.sessions.begin() as session:
            query = sa.select(Point.step, Point.value).where(
                Point.job_id == job_id, Point.name == name
            )
            return dict(session.execute(query.order_by(Point.step)).all())

    def version(self, job_id: str) -> ModelVersion:
        """The version that the job has registered."""
        with self.installation.sessions.begin() as session:
            return session.scalars(
                sa.select(ModelVersion).where(
                    ModelVersion.job_id == job_id, ModelVersion.project_id == PROJECT
                )
            ).one()

    def versions(self, name: str) -> list[ModelVersion]:
        """Every version of a name, deleted ones too."""
        with self.installation.sessions.begin() as session:
            query = sa.select(ModelVersion).where(
                ModelVersion.project_id == PROJECT, ModelVersion.name == name
            )
            return list(session.scalars(query.order_by(ModelVersion.version)))

    def weights(self, job_id: str) -> str:
        """The hash of the weights that the job has registered."""
        files = self.version(job_id).files
        return next(str(f["sha256"]) for f in files if f["path"].endswith("model.safetensors"))

    def pause(self, job_id: str) -> None:
        with self.installation.sessions.begin() as session:
            controls.pause(session, job_id, project_id=PROJECT)

    def resume(self, job_id: str) -> None:
        with self.installation.sessions.begin() as session:
            controls.resume(session, job_id, project_id=PROJECT)

    def cancel(self, job_id: str) -> None:
        with self.installation.sessions.begin() as session:
            controls.cancel(session, job_id, project_id=PROJECT)

    def cancel_all(self) -> None:
        """Cancel every job that has not ended."""
        with self.installation.sessions.begin() as session:
            live = list(session.scalars(sa.select(Job.id).where(Job.state.in_(ACTIVE))))
        for job_id in live:
            self.cancel(job_id)

    def wait_until_idle(self, job_id: str) -> None:
        """Return once no run of the job holds hosts."""
        wait_until(lambda: not self.live_ranks(job_id), seconds=60)

    def checkpoint(self, checkpoint_id: int) -> Checkpoint:
        with self.installation.sessions.begin() as session:
            return session.get_one(Checkpoint, checkpoint_id)

    def first_step_of(self, run: Run) -> int:
        """The step that a run resumed from."""
        return self.checkpoint(run.checkpoint_id).step if run.checkpoint_id else 0

    def host_of(self, run: Run) -> str:
        """The host of a run's rank 0."""
        with self.installation.sessions.begin() as session:
            return session.get_one(Rank, (run.id, 0)).host

    def checkpoint_at(self, job_id: str, step: int) -> int:
        """The id of the complete checkpoint of a step."""
        return next(each.id for each in self.checkpoints(job_id) if each.step == step)

    def hosts_idle(self) -> set[str]:
        """Names of hosts with a recent heartbeat and without a rank."""
        with self.installation.sessions.begin() as session:
            recent = Host.beat_at > sa.func.now() - predicates.SILENCE
            return set(session.scalars(sa.select(Host.name).where(Host.run_id.is_(None), recent)))

    def _step(self, job_id: str) -> int:
        runs = self.runs(job_id)
        return runs[-1].step if runs else 0

    def _is_there(self, name: str, process: Process) -> bool:
        assert process.alive, process.log.read_text()[-3000:]
        with self.installation.sessions.begin() as session:
            host = session.get(Host, name)
            return host is not None and host.run_id is None
