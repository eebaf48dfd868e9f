"""The embedded Postgres and Valkey: they start, keep what is theirs, and come back."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from api.stack import postgres as postgres_server
from api.stack import valkey as valkey_server
from tests.support.servers import Databases, Server


def ask(url: str, question: str) -> object:
    with psycopg.connect(url, connect_timeout=5, autocommit=True) as connection:
        row = connection.execute(question.encode()).fetchone()
        return row[0] if row else None


def command(url: str, *words: str) -> bytes:
    parts = urlsplit(url)
    lines = f"AUTH {parts.password}\r\n" + " ".join(words) + "\r\n"
    with socket.create_connection((parts.hostname, parts.port or 0), timeout=5) as line:
        line.sendall(lines.encode())
        line.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: line.recv(4096), b"")).removeprefix(b"+OK\r\n")


def test_postgres_answers_and_syncs(postgres: Server) -> None:
    assert ask(postgres.url, "SHOW fsync") == "on"
    assert ask(postgres.url, "SHOW max_connections") == "200"
    assert ask(postgres.url, "SHOW server_encoding") == "UTF8"
    assert ask(postgres.url, "SHOW password_encryption") == "scram-sha-256"


def test_postgres_does_not_run_as_root(postgres: Server) -> None:
    assert psutil.Process(postgres.pid).uids().real != 0


def test_postgres_wants_its_password(postgres: Server) -> None:
    password = urlsplit(postgres.url).password or ""
    assert postgres_server.answers(postgres.url)
    assert not postgres_server.answers(postgres.url.replace(password, "guess"))


def test_what_postgres_committed_survives_its_death(postgres: Server) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    before = postgres.pid
    postgres.kill()
    assert not postgres_server.answers(postgres.url)
    postgres.start()
    assert postgres.pid != before
    assert ask(postgres.url, "SELECT answer FROM kept") == 42


def test_a_clean_stop_of_postgres_needs_no_recovery(postgres: Server, server_home: Path) -> None:
    log = server_home / "postgres.log"
    postgres.stop()
    seen = len(log.read_text())
    postgres.start()
    assert "automatic recovery" not in log.read_text()[seen:]


def test_a_pid_file_of_a_dead_server_stops_nobody(postgres: Server, server_home: Path) -> None:
    postgres.stop()
    lock = server_home / "postgres" / "data" / "postmaster.pid"
    lock.write_text(f"{os.getpid()}\n/data\n")
    postgres_server._drop_stale_lock(lock.parent)
    assert not lock.exists()
    postgres.start()


def test_fresh_databases_are_apart(fresh_database: Databases) -> None:
    first, second = fresh_database(), fresh_database()
    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE mine ()")
    assert ask(first, "SELECT to_regclass('mine')::text") == "mine"
    assert ask(second, "SELECT to_regclass('mine')::text") is None


def test_a_fresh_database_is_migrated(fresh_database: Databases) -> None:
    assert ask(fresh_database(), "SELECT to_regclass('jobs')::text") == "jobs"


def test_valkey_evicts_nothing_and_saves_nothing(valkey: Server) -> None:
    assert b"noeviction" in command(valkey.url, "CONFIG", "GET", "maxmemory-policy")
    assert command(valkey.url, "CONFIG", "GET", "appendonly").endswith(b"no\r\n")


def test_valkey_wants_its_password(valkey: Server) -> None:
    assert valkey_server.answers(valkey.url)
    password = urlsplit(valkey.url).password or ""
    assert not valkey_server.answers(valkey.url.replace(password, "guess"))
    assert not valkey_server.answers(valkey.url.replace(f":{password}@", ""))


def test_no_password_is_among_the_arguments(postgres: Server, valkey: Server) -> None:
    for server in (postgres, valkey):
        arguments = " ".join(psutil.Process(server.pid).cmdline())
        assert (urlsplit(server.url).password or "?") not in arguments


def test_the_servers_listen_on_this_machine_alone(postgres: Server, valkey: Server) -> None:
    for server in (postgres, valkey):
        sockets = psutil.Process(server.pid).net_connections()
        assert {s.laddr.ip for s in sockets if s.status == psutil.CONN_LISTEN} == {"127.0.0.1"}


def test_a_killed_valkey_returns_empty_on_the_same_port(valkey: Server) -> None:
    command(valkey.url, "SET", "a", "1")
    valkey.kill()
    assert not valkey_server.answers(valkey.url)
    valkey.start()
    assert command(valkey.url, "GET", "a") == b"$-1\r\n"


@pytest.mark.parametrize("name", ["postgres-password", "valkey/password", "valkey/valkey.conf"])
@pytest.mark.usefixtures("postgres", "valkey")
def test_only_the_owner_reads_a_secret(server_home: Path, name: str) -> None:
    assert (server_home / name).stat().st_mode & 0o777 == 0o600
