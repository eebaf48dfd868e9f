"""Every rule of the classification, with exceptions that are really raised where possible."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import httpx
import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import sqlalchemy as sa
import torch
from huggingface_hub import errors as hub_errors
from huggingface_hub import hf_hub_download
from hypothesis import given
from hypothesis import strategies as st

from api.stack import ports
from jobs import database, errors, objects
from jobs.decisions import faults
from jobs.decisions.faults import RULES, Blame, RetryLimits, Stage
from tests.support.seaweed import BUCKET, S3
from tests.support.servers import Databases

Raised = Callable[[], object]

JOB, ENGINE, TRANSIENT, LEASE = Blame.JOB, Blame.ENGINE, Blame.TRANSIENT, Blame.LEASE


def caught(raised: Raised) -> BaseException:
    with pytest.raises(BaseException) as caught_:  # noqa: PT011 - any, that is the question
        raised()
    return caught_.value


def throw(error: BaseException) -> Raised:
    def thrown() -> None:
        raise error

    return thrown


def blames(error: BaseException) -> list[Blame]:
    """In the order of the stages: planning, chunk, row, finalizing, host."""
    return [faults.diagnose(error, stage=stage).blame for stage in Stage]


def all_of(blame: Blame) -> list[Blame]:
    return [blame] * len(Stage)


MEMORY = [TRANSIENT, TRANSIENT, Blame.ROW, TRANSIENT, TRANSIENT]
EARLY = [JOB, ENGINE, Blame.ROW, ENGINE, ENGINE]
LATE = [ENGINE, ENGINE, Blame.ROW, ENGINE, ENGINE]


def no_space() -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"x")


def too_many_files() -> None:
    import resource  # noqa: PLC0415

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        held.extend(os.dup(0) for _ in range(64))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)


def refused_connection() -> None:
    socket.create_connection(("127.0.0.1", ports.choose()), timeout=2)


def refused_request() -> None:
    httpx.get(f"http://127.0.0.1:{ports.choose()}/", trust_env=False)


def unknown_zone() -> object:
    return pa.array([1], type=pa.timestamp("us", tz="Mars/Olympus")).to_pylist()


def recurse() -> None:
    recurse()


CASES: dict[str, tuple[Raised, list[Blame], str]] = {
    "a lost lease": (throw(errors.LeaseLost("taken")), all_of(LEASE), "lease_lost"),
    "a corpus": (throw(errors.CorpusFailure("empty", code="x")), all_of(JOB), "x"),
    "a model": (throw(errors.ModelFailure("no head")), all_of(JOB), "model_unreadable"),
    "an input refused": (throw(errors.CorpusRefused("no")), all_of(JOB), "corpus_refused"),
    "a file that was deleted": (throw(errors.NotFound("no file")), all_of(JOB), "not_found"),
    "a checkpoint": (
        throw(errors.CheckpointDamaged("torn")),
        all_of(TRANSIENT),
        "checkpoint_damaged",
    ),
    "a torn part": (throw(errors.Damaged("torn")), all_of(JOB), "damaged"),
    "no memory on the host": (
        lambda: np.ones(2**62, dtype=np.uint8),
        MEMORY,
        "out_of_memory",
    ),
    "no memory in the allocator of PyTorch": (
        lambda: torch.empty(2**60, dtype=torch.uint8),
        MEMORY,
        "out_of_memory",
    ),
    "no memory on the device": (
        throw(torch.OutOfMemoryError("CUDA")),
        MEMORY,
        "out_of_memory",
    ),
    "no memory in the system": (
        throw(OSError(errno.ENOMEM, "Cannot allocate memory")),
        MEMORY,
        "out_of_memory",
    ),
    "an invalid repository id": (
        lambda: hf_hub_download("a/b/c/d", "x"),
        [JOB, JOB, Blame.ROW, JOB, JOB],
        "corpus_unreadable",
    ),
    "a file that the hub does not have": (
        throw(hub_errors.EntryNotFoundError("no such file")),
        [JOB, JOB, Blame.ROW, JOB, JOB],
        "corpus_unreadable",
    ),
    "a connection refused": (refused_connection, all_of(TRANSIENT), "network_unavailable"),
    "a request refused": (refused_request, all_of(TRANSIENT), "network_unavailable"),
    "a host name that does not resolve": (
        lambda: socket.getaddrinfo("nowhere.invalid", 80),
        all_of(TRANSIENT),
        "network_unavailable",
    ),
    "an unreachable host": (
        throw(OSError(errno.EHOSTUNREACH, "No route to host")),
        all_of(TRANSIENT),
        "network_unavailable",
    ),
    "a full disk": (no_space, all_of(TRANSIENT), "machine_unavailable"),
    "too many open files": (too_many_files, all_of(TRANSIENT), "machine_unavailable"),
    "a long path": (lambda: Path("/" + "x" * 5_000).stat(), EARLY, "path_unusable"),
    "a missing path": (lambda: Path("/nowhere/at/all").stat(), EARLY, "path_unusable"),
    "a folder": (Path("/").read_bytes, EARLY, "path_unusable"),
    "an unknown time zone": (unknown_zone, EARLY, "data_refused"),
    "a wrong value": (lambda: int("x"), EARLY, "data_refused"),
    "a value that Arrow refuses": (lambda: pa.scalar(2**40, pa.int8()), EARLY, "data_refused"),
    "a cast that Arrow lacks": (
        lambda: pc.cast(pa.array([b"x"]), pa.list_(pa.int8())),
        EARLY,
        "data_refused",
    ),
    "a recursion": (recurse, EARLY, "data_refused"),
    "a bug": (lambda: len(3), LATE, "unexpected_error"),  # type: ignore[arg-type]
    "an OSError without an error number": (throw(OSError("whatever")), LATE, "unexpected_error"),
    "an error of a library": (
        lambda: torch.zeros(2) @ torch.zeros(3),
        LATE,
        "unexpected_error",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_exception_has_its_blame_and_code(name: str) -> None:
    raised, blame, code = CASES[name]
    error = caught(raised)
    assert blames(error) == blame
    diagnosis = faults.diagnose(error, stage=Stage.PLANNING)
    assert diagnosis.code == (faults.UNEXPECTED if diagnosis.blame is ENGINE else code)
    assert len(diagnosis.message) < faults.MAX_MESSAGE_CHARACTERS + 100


DATABASE: dict[str, tuple[str, Blame, str]] = {
    "a terminated backend": (
        "SELECT pg_terminate_backend(pg_backend_pid())",
        TRANSIENT,
        "database_unavailable",
    ),
    "a statement that is too slow": (
        "SET LOCAL statement_timeout = 10; SELECT pg_sleep(1)",
        TRANSIENT,
        "database_unavailable",
    ),
    "more than a row can hold": (
        f"SELECT {', '.join(['1'] * 1_665)}",
        JOB,
        "value_unstorable",
    ),
    "a text with a character that Postgres does not allow": (
        "SELECT '\"\\u0000\"'::jsonb ->> 0",
        JOB,
        "value_unstorable",
    ),
    "a wrong statement of ours": ("SELECT nonsense", ENGINE, "unexpected_error"),
}


@pytest.mark.parametrize("name", DATABASE)
def test_errors_of_postgres_are_distinguished_by_their_sqlstate(
    name: str, fresh_database: Databases
) -> None:
    statement, blame, code = DATABASE[name]
    url = fresh_database()
    engine = database.connect(url)
    with pytest.raises(sa.exc.DBAPIError) as wrapped, engine.begin() as connection:
        connection.execute(sa.text(statement.replace(":", "\\:")))
    engine.dispose()
    with (
        pytest.raises(psycopg.Error) as plain,
        psycopg.connect(database.plain_url(url)) as connection2,
    ):
        connection2.execute(statement.encode())
    for error in (wrapped.value, plain.value):
        diagnosis = faults.diagnose(error, stage=Stage.CHUNK)
        assert (diagnosis.blame, diagnosis.code) == (blame, code)


def test_an_unreachable_postgres_is_transient() -> None:
    engine = database.connect(f"postgresql://127.0.0.1:{ports.choose()}/nowhere")
    with pytest.raises(sa.exc.OperationalError) as refused:
        engine.connect()
    assert blames(refused.value) == all_of(TRANSIENT)


def test_errors_of_the_local_store(tmp_path: Path) -> None:
    store = objects.connect(tmp_path.as_uri())
    (tmp_path / "jobs").write_text("no folder")
    missing = caught(lambda: store.get("a/b"))
    blocked = caught(lambda: store.put("jobs/1/part", b"x"))
    assert blames(missing) == all_of(JOB)
    assert blames(blocked) == all_of(TRANSIENT)
    for error in (missing, blocked):
        assert str(tmp_path) not in faults.describe(error)
        assert str(tmp_path) not in str(error)


def test_errors_of_s3(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    store = objects.connect(f"s3://{BUCKET}/faults")
    assert blames(caught(lambda: store.get("a/b"))) == all_of(JOB)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    refused = caught(lambda: objects.connect(f"s3://{BUCKET}/faults").put("a", b"x"))
    assert faults.diagnose(refused, stage=Stage.CHUNK).code == "storage_refused"
    assert blames(refused) == all_of(TRANSIENT)


def test_every_rule_matches_one_of_these_exceptions() -> None:
    samples = [caught(raised) for raised, _, _ in CASES.values()]
    samples += [errors.StorageAway("silent"), sa.exc.TimeoutError("no connection is free")]
    samples.append(errors.AliasContended("moved three times"))
    samples.append(psycopg.errors.ProgramLimitExceeded("too large"))
    assert {rule.what for rule in RULES} == {faults.rule_for(error).what for error in samples}


def test_an_oserror_is_described_without_its_path() -> None:
    error = caught(lambda: Path("/nowhere/secret").stat())
    assert faults.describe(error) == "FileNotFoundError: No such file or directory"


def test_the_backoff_grows_to_a_minute() -> None:
    seconds = [faults.backoff(tries).total_seconds() for tries in (1, 2, 3, 6, 7, 8, 5_000)]
    assert seconds == [1, 2, 4, 32, 60, 60, 60]


LIMITS = RetryLimits(tries=5, outage=timedelta(hours=24))


@given(tries=st.integers(1, 10_000), hours=st.integers(0, 100))
def test_an_outage_ends_work_only_after_enough_time_and_tries(tries: int, hours: int) -> None:
    span = timedelta(hours=hours)
    ended = faults.should_fail_job(TRANSIENT, tries=tries, failing_for=span, limits=LIMITS)
    assert ended == (hours >= 24 and tries >= faults.MIN_OUTAGE_TRIES)


@given(tries=st.integers(1, 100), hours=st.integers(0, 100))
def test_when_work_with_another_blame_is_given_up(tries: int, hours: int) -> None:
    span = timedelta(hours=hours)

    def should_fail_job(blame: Blame) -> bool:
        return faults.should_fail_job(blame, tries=tries, failing_for=span, limits=LIMITS)

    assert should_fail_job(JOB)
    assert should_fail_job(ENGINE) == (tries >= 5)
    assert not should_fail_job(LEASE)
    assert not should_fail_job(Blame.ROW)
