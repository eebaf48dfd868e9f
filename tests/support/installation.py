"""A whole installation in real processes, which a test starts, uses, kills and inspects."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa

from jobs import database, ids, kinds, objects, parent_death
from jobs.ledger import files, projects, submission
from jobs.queries import chunks
from jobs.queries import jobs as job_queries
from jobs.queries.jobs import JobView
from jobs.results import parts, verification
from jobs.settings import Settings
from jobs.states import FINAL, ChunkState, JobState
from jobs.tables import Chunk
from tests.support.waiting import wait_until

PROJECT = "default"
KEY = "test-key"


class Process:
    """One process of the installation, in a session of its own."""

    def __init__(
        self, arguments: list[str], *, env: dict[str, str], log: Path, before: Sequence[str] = ()
    ) -> None:
        """``before``: a command that runs Python, such as `ip netns exec`."""
        self.log = log
        with log.open("ab") as sink:
            self._popen = subprocess.Popen(
                [*before, sys.executable, "-m", *arguments],
                env=env,
                stdout=sink,
                stderr=sink,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=parent_death.in_child(),  # noqa: PLW1509 - two system calls
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        """``None`` while it is alive."""
        return self._popen.poll()

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to this process alone; its children notice by themselves."""
        self.send(signal.SIGKILL)
        self._popen.wait()

    def stop(self, *, seconds: float = 30) -> None:
        """SIGTERM, then SIGKILL to the whole group."""
        if self.alive:
            self.send(signal.SIGTERM)
        try:
            self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self._popen.wait()


class Installation:
    """Processes on one database, one Valkey and one folder."""

    def __init__(
        self, *, database_url: str, redis_url: str, home: Path, model: Path, **options: Any
    ) -> None:
        self.home = home
        self.model = model
        home.mkdir(parents=True, exist_ok=True)
        self.settings = Settings(
            database_url=database_url,
            redis_url=redis_url,
            **{
                "control_interval_seconds": 0.1,
                "object_store_url": f"file://{home}/objects",
                **options,
            },
        )
        self.sessions = database.sessions(database.connect(database_url))
        self.store = objects.connect(self.settings.object_store_url)
        self.processes: list[Process] = []
        with self.sessions.begin() as session:
            projects.ensure_key(session, project_id=PROJECT, key=KEY)

    @property
    def env(self) -> dict[str, str]:
        """The settings as a process reads them."""
        values = self.settings.model_dump(mode="json")
        names = {f"NIGHTSHIFT_{name.upper()}": _env_value(value) for name, value in values.items()}
        return {**os.environ, **names, "HF_HUB_OFFLINE": "1", "NIGHTSHIFT_API_KEY": KEY}

    def start(self, *arguments: str, **env: str) -> Process:
        """Start ``python -m ARGUMENTS``."""
        log = self.home / f"{'-'.join(arguments)}.log"
        process = Process(list(arguments), env={**self.env, **env}, log=log)
        self.processes.append(process)
        return process

    def start_role(self, role: str, **env: str) -> Process:
        """Start control, a planner or a pool worker."""
        return self.start("workers.processes", role, **env)

    def stop_role(self, role: str) -> None:
        """End every process of this role."""
        for process in self._of_role(role):
            process.stop()

    def has_role(self, role: str) -> bool:
        """Whether a process of this role is alive."""
        return any(process.alive for process in self._of_role(role))

    def _of_role(self, role: str) -> list[Process]:
        log = f"workers.processes-{role}.log"
        return [process for process in self.processes if process.log.name == log]

    @contextmanager
    def running(self, *roles: str) -> Iterator[Self]:
        """With these roles started; every process ends at the end."""
        try:
            for role in roles:
                self.start_role(role)
            yield self
        finally:
            self.stop()

    def stop(self) -> None:
        """End every process."""
        for process in self.processes:
            process.stop()

    def start_host(self, name: str, *, before: Sequence[str] = (), **env: str) -> Process:
        """Start a training host of this name."""
        own = {
            "NIGHTSHIFT_HOST_NAME": name,
            "NIGHTSHIFT_HOST_FOLDER": str(self.home / f"work-{name}"),
            "NIGHTSHIFT_ARTEFACT_CACHE": str(self.home / "artefacts"),
            "OMP_NUM_THREADS": "1",
        }
        log = self.home / f"host-{name}.log"
        process = Process(
            ["workers.processes", "host"], env={**self.env, **own, **env}, log=log, before=before
        )
        self.processes.append(process)
        return process

    def upload(self, content: bytes, *, filename: str = "corpus.jsonl") -> str:
        """A stored file's id."""
        file_id = ids.file()
        key = f"files/{file_id}"
        self.store.put(key, content)
        with self.sessions.begin() as session:
            files.add(
                session,
                file_id=file_id,
                project_id=PROJECT,
                filename=filename,
                purpose="batch",
                size=len(content),
                sha256="",
                object_key=key,
            )
        return file_id

    def submit(
        self,
        corpus: bytes,
        *,
        filename: str = "corpus.jsonl",
        corpus_fields: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> str:
        """Accept a job over these bytes; by default a classification with this model."""
        usual = {"model": str(self.model)} if fields.get("kind") in (None, "classify") else {}
        corpus_spec = {"file": self.upload(corpus, filename=filename), **(corpus_fields or {})}
        spec = kinds.parse({"corpus": corpus_spec, **usual, **fields})
        with self.sessions.begin() as session:
            job_id, _ = submission.accept(
                session, project_id=PROJECT, spec=spec, idempotency_key=None
            )
        return job_id

    def job(self, job_id: str) -> JobView:
        with self.sessions.begin() as session:
            return job_queries.get(session, job_id, project_id=PROJECT)

    def wait(self, job_id: str, *states: JobState, seconds: float = 120) -> JobView:
        """The job once it is in one of the states, or has ended."""
        wanted = frozenset(states) | FINAL
        try:
            wait_until(lambda: self.job(job_id).job.state in wanted, seconds=seconds, every=0.1)
        except AssertionError:
            raise AssertionError(f"{self.job(job_id)}\n{self.logs()}") from None
        return self.job(job_id)

    def wait_for_chunks(self, job_id: str, count: int, *, seconds: float = 120) -> None:
        """Return once ``count`` chunks are done."""
        wait_until(lambda: self.job(job_id).counts.done >= count, seconds=seconds)

    def results(self, job_id: str) -> list[dict[str, Any]]:
        """Every output row, in row order, from the parts that the ledger points at."""
        with self.sessions.begin() as session:
            done = list(chunks.done_parts(session, job_id))
        return [row for part in done for row in parts.read(self.store, part).to_pylist()]

    def verify(self, job_id: str) -> verification.VerificationReport:
        return verification.verify(self.sessions, self.store, job_id, settings=self.settings)

    def leased(self, job_id: str) -> list[Chunk]:
        with self.sessions.begin() as session:
            return list(
                session.scalars(
                    sa.select(Chunk).where(Chunk.job_id == job_id, Chunk.state == ChunkState.LEASED)
                )
            )

    def logs(self) -> str:
        """The end of every log, for a failing test."""
        logs = sorted({process.log for process in self.processes})
        return "\n".join(f"--- {log.name}\n{log.read_text()[-3000:]}" for log in logs)


def jsonl(texts: Iterable[str]) -> bytes:
    """A corpus of these texts."""
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def _env_value(value: object) -> str:
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def sentences(count: int) -> Iterator[str]:
    """``count`` different short texts."""
    words = ["good", "bad", "great", "awful", "film", "book", "news", "goal", "bank", "rain"]
    for number in range(count):
        first, second = words[number % 10], words[(number // 10) % 10]
        yield f"{first} {second} number {number}"
