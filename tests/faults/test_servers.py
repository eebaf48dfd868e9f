"""Promises P1 and P2 when a server dies in the middle: Valkey, all it held, Postgres."""

from __future__ import annotations

import redis

from tests.faults.conftest import Answers, assert_whole
from tests.support.installation import Installation
from tests.support.servers import Server


def test_a_flushed_broker_costs_nothing(
    installation: Installation, valkey: Server, job: str, undisturbed: Answers
) -> None:
    redis.Redis.from_url(valkey.url).flushall()
    assert_whole(installation, job, undisturbed)


def test_a_killed_broker_costs_nothing(
    installation: Installation, valkey: Server, job: str, undisturbed: Answers
) -> None:
    valkey.kill()
    valkey.start()
    assert_whole(installation, job, undisturbed)


def test_a_killed_postgres_costs_nothing(
    installation: Installation, postgres: Server, job: str, undisturbed: Answers
) -> None:
    postgres.kill()
    postgres.start()
    assert_whole(installation, job, undisturbed)
