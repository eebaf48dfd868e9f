"""Jobs that need one another, made and ended by the ledger alone."""

from __future__ import annotations

from typing import Any

from jobs import kinds
from jobs.ledger import dependencies, dispatch_marks, registry, submission, transitions
from jobs.states import JobState
from tests.jobs.ledger.building import PROJECT, Ledger


class Chains:
    """A ledger, and short words for what happens to jobs that need one another."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def finetune(self, *depends_on: str, **fields: Any) -> str:
        spec = {
            "kind": "finetune",
            "corpus": {"uri": "file:///corpus.jsonl"},
            "model": "news",
            "base": "/model",
            "depends_on": depends_on,
        }
        with self.ledger.sessions.begin() as session:
            job_id, _ = submission.accept(
                session, project_id=PROJECT, spec=kinds.parse(spec | fields), idempotency_key=None
            )
        return job_id

    def succeed(self, job_id: str) -> None:
        self.ledger.plan(job_id, [1])
        self.ledger.commit_all(job_id)
        with self.ledger.sessions.begin() as session:
            dispatch_marks.begin_finalizing(session, job_id)
        self.ledger.finish(job_id)

    def fail(self, job_id: str) -> None:
        with self.ledger.sessions.begin() as session:
            assert transitions.fail(session, job_id, code="corpus_unreadable", message="gone")

    def register(self, job_id: str, *, name: str = "news") -> str:
        """End a fine-tune as its host does: its version is there when it has succeeded."""
        held = self.ledger.claim_step(job_id)
        assert held is not None
        with self.ledger.sessions.begin() as session:
            version = registry.register(
                session,
                project_id=PROJECT,
                name=name,
                task="classify",
                kind="full",
                base="/model",
                files=[],
                metrics={},
                lineage={},
                job_id=job_id,
            )
            transitions.move(session, job_id, JobState.RUNNING)
            transitions.move(session, job_id, JobState.SUCCEEDED)
        return f"{name}@{version}"

    def settle(self) -> int:
        """Every turn that control has for them; the number of jobs that something happened to."""
        count = 0
        while True:
            with self.ledger.sessions.begin() as session:
                due = dependencies.due(session, limit=100)
            if not due:
                return count
            for job_id in due:
                with self.ledger.sessions.begin() as session:
                    count += dependencies.settle(session, job_id)

    def begins(self, job_id: str) -> bool:
        """Whether a planner can claim it."""
        return self.ledger.claim_step(job_id) is not None

    def state(self, job_id: str) -> JobState:
        return self.ledger.job(job_id).state
