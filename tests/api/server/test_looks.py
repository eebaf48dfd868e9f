"""Streams share looks at their job, and a project's looks leave time to others (promise P12)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from api.server import looks, sse
from api.server.looks import Looks
from jobs.ledger import controls, transitions
from jobs.states import JobState
from tests.jobs.ledger.building import OTHER, PROJECT, Ledger

STREAMS = 20


@contextmanager
def counted(ledger: Ledger) -> Iterator[list[str]]:
    """The jobs that are looked at meanwhile: each look counts labels once, per job."""
    found: list[str] = []

    def note(_connection: object, _cursor: object, sql: str, values: Any, *_rest: object) -> None:
        if "jsonb_each" in sql:
            found.append(values["job_id"])

    sa.event.listen(ledger.engine, "before_cursor_execute", note)
    yield found
    sa.event.remove(ledger.engine, "before_cursor_execute", note)


async def read(followed: Looks, job_id: str, *, after: int = 0) -> list[tuple[str, str | None]]:
    """The events of a stream until its end, by type and id."""
    stream = sse.follow(followed, job_id, project_id=PROJECT, after=after)
    return [(event.event, event.id) async for event in stream if event.event]


def test_streams_of_one_job_share_each_look_and_all_see_its_end(ledger: Ledger) -> None:
    job_id = ledger.accept()

    async def story() -> list[list[tuple[str, str | None]]]:
        followed = Looks(ledger.sessions)
        streams = [asyncio.create_task(read(followed, job_id)) for _ in range(STREAMS)]
        await asyncio.sleep(2.5 * looks.SHORTEST_PAUSE)
        fail(ledger, job_id)
        return await asyncio.gather(*streams)

    with counted(ledger) as looked:
        told = asyncio.run(story())
    assert len(looked) < STREAMS
    kinds = [kind for kind, _ in told[0]]
    assert kinds[0] == "accepted"
    assert kinds[-2:] == ["state", "progress"]
    assert told[0][-1][1] == f"{told[0][-2][1]}-end"
    events = [[entry for entry in each if entry[1]] for each in told]
    assert events == [events[0]] * STREAMS


def test_a_stream_begins_behind_what_its_client_has_seen(ledger: Ledger) -> None:
    job_id = ledger.accept()
    fail(ledger, job_id)

    async def story() -> tuple[list[tuple[str, str | None]], list[tuple[str, str | None]]]:
        followed = Looks(ledger.sessions)
        whole = await read(followed, job_id)
        return whole, await read(followed, job_id, after=int(whole[0][1] or 0))

    whole, rest = asyncio.run(story())
    assert rest == whole[1:]


def test_a_long_history_comes_whole_to_all_streams(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "BATCH", 2)
    job_id = ledger.accept()
    with ledger.sessions.begin() as session:
        for _ in range(3):
            controls.pause(session, job_id, project_id=PROJECT)
            controls.resume(session, job_id, project_id=PROJECT)
    fail(ledger, job_id)

    async def story() -> list[list[tuple[str, str | None]]]:
        followed = Looks(ledger.sessions)
        return await asyncio.gather(*(read(followed, job_id, after=after) for after in (0, 0, 1)))

    told = asyncio.run(story())
    assert len({entry for entry in told[0] if entry[1]}) == len(told[0]) >= 8
    assert told == [told[0]] * 3


def test_looks_of_one_project_take_turns_and_rest_and_others_do_not_wait(ledger: Ledger) -> None:
    job_ids = [ledger.accept() for _ in range(STREAMS)]
    other = ledger.accept(project=OTHER)

    async def story() -> float:
        followed = Looks(ledger.sessions)
        loop = asyncio.get_running_loop()
        streams = [asyncio.create_task(read(followed, job_id)) for job_id in job_ids]
        await asyncio.sleep(0.1)
        begun = loop.time()
        stream = sse.follow(followed, other, project_id=OTHER, after=0)
        async for event in stream:
            if event.event == "progress":
                break
        await stream.aclose()
        waited = loop.time() - begun
        for each in streams:
            each.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
        return waited

    with counted(ledger) as looked:
        waited = asyncio.run(story())
    assert other in looked
    assert len(looked) < STREAMS, f"all were looked at within {waited:.2f} s"


def fail(ledger: Ledger, job_id: str) -> None:
    with ledger.sessions.begin() as session:
        transitions.move(session, job_id, JobState.PLANNING)
        transitions.fail(session, job_id, code="corpus_empty", message="the corpus is empty")
