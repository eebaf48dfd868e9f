"""A worker that drains is no longer on record, even if a heartbeat was under way."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from sqlalchemy.orm import Session

from jobs.queries import capacity
from tests.jobs.ledger.building import Ledger
from workers import context, heartbeat
from workers.heartbeat import Presence, WorkerRecord

POOL = "heartbeats"


@dataclass
class SlowRecord(WorkerRecord):
    """A record whose heartbeats are slow enough for the worker to drain in the middle of one."""

    beating: threading.Event = field(default_factory=threading.Event)

    def arrive(self, session: Session) -> None:
        super().beat(session)

    def beat(self, session: Session) -> None:
        self.beating.set()
        time.sleep(0.5)
        super().beat(session)


def test_a_heartbeat_under_way_does_not_bring_a_draining_worker_back(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "get", lambda: SimpleNamespace(sessions=ledger.sessions))
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.01)
    record = SlowRecord("w", pool=POOL, slots=1, device="cpu")
    presence = Presence(record, redis_url="redis://127.0.0.1:1", hang_seconds=600)
    presence.start()
    assert record.beating.wait(30)
    presence.drain()
    presence.stop()
    with ledger.sessions.begin() as session:
        assert POOL not in capacity.look(session).pools
