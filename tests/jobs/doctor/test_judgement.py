"""What facts mean: well, doubtful or broken, and what to do."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.doctor import check_results, judgement, machine
from jobs.doctor.check_results import CheckResult, CheckStatus
from jobs.doctor.facts import (
    ApiFacts,
    CrewFacts,
    FolderFacts,
    PoolFacts,
    PostgresFacts,
    RedisFacts,
)
from jobs.settings import Settings

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
GIB = 2**30

POSTGRES = PostgresFacts(
    version="PostgreSQL 18.1",
    major=18,
    read_only=False,
    skew_seconds=0.1,
    connections=9,
    most_connections=100,
    revision="0003",
    revisions=("0003", "0002", "0001"),
)
REDIS = RedisFacts(
    name="Valkey 9.1.0",
    version=(9, 1, 0),
    replica=False,
    memory=0,
    most_memory=0,
    policy="noeviction",
    keeps=False,
    save_failed=False,
)
FOLDER = FolderFacts(
    purpose="cache of models",
    path=Path("/cache"),
    problem=None,
    mode=0o700,
    free=100 * GIB,
    total=200 * GIB,
)
POOL = PoolFacts("cpu", alive=2, slots=4, devices=["cpu", "cpu"], last_heard=NOW)
DEAD = PoolFacts("gpu", alive=0, slots=0, devices=[], last_heard=NOW - timedelta(hours=1))
CREW = CrewFacts(
    now=NOW,
    control_turned_at=NOW,
    broker_error=None,
    planners=1,
    pools=[POOL],
    hosts=[],
    accelerator_here=False,
)
API = ApiFacts(
    url="http://api",
    version="1.0",
    own_version="1.0",
    ready=True,
    key_valid=True,
    skew_seconds=0.4,
)


def worst(found: list[CheckResult]) -> tuple[CheckStatus, str, str]:
    """Of the finding that is not well, or of the first: status, sentence and advice."""
    each = next((each for each in found if each.status is not CheckStatus.OK), found[0])
    return each.status, each.sentence, each.advice


@pytest.mark.parametrize(
    "found",
    [
        [*judgement.postgres(POSTGRES), judgement.migrations(POSTGRES)],
        list(judgement.redis(REDIS)),
        list(judgement.folder(FOLDER)),
        list(judgement.crew(CREW)),
        list(judgement.api(API)),
    ],
)
def test_what_is_well_needs_no_advice(found: list[CheckResult]) -> None:
    assert {each.status for each in found} == {CheckStatus.OK}
    assert {each.advice for each in found} == {""}


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"major": 13, "version": "PostgreSQL 13.2"}, "error", "13.2 is too old"),
        ({"read_only": True}, "error", "is a standby"),
        ({"connections": 95}, "warning", "95 of 100 connections"),
        ({"skew_seconds": 4.2}, "warning", "it is 4 s ahead of this machine's"),
        ({"skew_seconds": -1_000}, "error", "it is 1,000 s behind this machine's"),
        ({"revision": None}, "error", "no schema yet"),
        ({"revision": "0001"}, "error", "is at 0001, 2 migrations behind"),
        ({"revision": "0004"}, "warning", "is at 0004, which this version does not know"),
    ],
)
def test_postgres(change: dict[str, Any], status: str, words: str) -> None:
    facts = dataclasses.replace(POSTGRES, **change)
    found = worst([*judgement.postgres(facts), judgement.migrations(facts)])
    assert (found[0], words in found[1], bool(found[2])) == (status, True, True)


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"replica": True}, "error", "is a replica"),
        ({"version": (6, 2, 1), "name": "Redis 6.2.1"}, "warning", "Redis 6.2.1 is older"),
        ({"policy": "allkeys-lru"}, "warning", "once it has a limit of memory"),
        ({"policy": "allkeys-lru", "most_memory": 1}, "error", "when it is full"),
        ({"policy": ""}, "warning", "does not tell its policy"),
        ({"memory": 95, "most_memory": 100}, "warning", "95% of its memory is in use"),
        ({"save_failed": True}, "error", "its last snapshot failed"),
        ({"keeps": True}, "ok", "answers"),
        ({"keeps": None}, "ok", "answers"),
    ],
)
def test_redis(change: dict[str, Any], status: str, words: str) -> None:
    found = worst(list(judgement.redis(dataclasses.replace(REDIS, **change))))
    assert (found[0], words in found[1]) == (status, True)


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"problem": "it is read-only"}, "error", "/cache cannot be written: it is read-only"),
        ({"free": GIB // 2}, "error", "has 0.5 GiB left"),
        ({"free": 5 * GIB}, "warning", "has 5.0 GiB left"),
        ({"mode": 0o750, "private": True}, "warning", "open to other accounts (mode 0750)"),
        ({"mode": 0o750}, "ok", "100.0 GiB are free"),
        ({"mode": None, "private": True}, "ok", "can be written"),
    ],
)
def test_folders(change: dict[str, Any], status: str, words: str) -> None:
    found = worst(list(judgement.folder(dataclasses.replace(FOLDER, **change))))
    assert (found[0], words in found[1]) == (status, True)


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"control_turned_at": None}, "error", "no control process has ever run"),
        (
            {"control_turned_at": NOW - timedelta(minutes=1)},
            "error",
            "no control process has run since 2026-01-01 11:59:00 UTC",
        ),
        ({"broker_error": "refused"}, "error", "does not reach the broker: refused"),
        ({"planners": 0}, "error", "no planner is alive"),
        ({"pools": []}, "error", "no worker has ever been here"),
        ({"pools": [POOL, DEAD]}, "warning", "none is alive; the last was heard at"),
        ({"accelerator_here": True}, "warning", "has an NVIDIA device, and no worker"),
        (
            {
                "accelerator_here": True,
                "hosts": [dataclasses.replace(POOL, devices=["cuda:0,1"])],
            },
            "ok",
            "a control process leads",
        ),
    ],
)
def test_who_is_there(change: dict[str, Any], status: str, words: str) -> None:
    found = worst(list(judgement.crew(dataclasses.replace(CREW, **change))))
    assert (found[0], words in found[1]) == (status, True)


def test_a_pool_without_a_worker_names_the_command_that_starts_one() -> None:
    (found,) = [
        each
        for each in judgement.crew(dataclasses.replace(CREW, pools=[DEAD], hosts=[DEAD]))
        if each.check == "hosts gpu"
    ]
    assert found.advice == "start one: `NIGHTSHIFT_HOST_POOL=gpu python -m workers.processes host`"


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"ready": False}, "error", "its database does not"),
        ({"version": "0.9"}, "warning", "is version 0.9, this one is 1.0"),
        ({"key_valid": False}, "error", "does not know this key"),
        ({"key_valid": None}, "warning", "there is no key to try"),
        ({"skew_seconds": 3_600}, "error", "it is 3,600 s ahead"),
    ],
)
def test_the_api(change: dict[str, Any], status: str, words: str) -> None:
    found = worst(list(judgement.api(dataclasses.replace(API, **change))))
    assert (found[0], words in found[1]) == (status, True)


@given(
    st.builds(
        CrewFacts,
        now=st.just(NOW),
        control_turned_at=st.sampled_from([None, NOW]),
        broker_error=st.sampled_from([None, "refused"]),
        planners=st.integers(0, 2),
        pools=st.lists(st.sampled_from([POOL, DEAD]), max_size=3),
        hosts=st.lists(st.sampled_from([POOL, DEAD]), max_size=3),
        accelerator_here=st.booleans(),
    )
)
def test_whatever_is_not_well_says_what_to_do(facts: CrewFacts) -> None:
    for each in judgement.crew(facts):
        assert each.sentence
        assert bool(each.advice) == (each.status is not CheckStatus.OK)


def test_a_variable_that_is_nearly_a_setting_is_named() -> None:
    (found,) = machine.variables({"NIGHTSHIFT_REDIS_URI": "x", "NIGHTSHIFT_API_KEY": "y"})
    assert found.sentence == "NIGHTSHIFT_REDIS_URI is no setting"
    assert found.advice == "write NIGHTSHIFT_REDIS_URL, or remove it"


@pytest.mark.parametrize(
    "name", ["NIGHTSHIFT_API_KEY", "NIGHTSHIFT_API_URL", "NIGHTSHIFT_HOME", "NIGHTSHIFT_ALLOW"]
)
def test_a_variable_of_the_command_line_is_no_slip(name: str) -> None:
    assert [each.status for each in machine.variables({name: "x"})] == [CheckStatus.OK]


def test_no_secret_is_in_a_finding_and_each_is_one_line() -> None:
    settings = Settings(
        database_url="postgresql://ns:pass%40word@db/ns",
        redis_url="redis://:hidden@redis/0",
    )
    variables = {"AWS_SECRET_ACCESS_KEY": "s3cr3t", "NIGHTSHIFT_FLOWER_BASIC_AUTH": "me:flowery"}
    given = check_results.error("x", "pass@word pass%40word\nhidden", "s3cr3t flowery")
    (found,) = check_results.redacted([given], check_results.secrets(settings, variables))
    assert (found.sentence, found.advice) == ("*** *** ***", "*** ***")
