"""The database as `pg_dump` writes it and `pg_restore` reads it, by their standard streams."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import sqlalchemy as sa

from jobs import database
from jobs.errors import NightshiftError

BLOCK = 2**20
"""Bytes that are passed on at a time."""


class DumpFailed(NightshiftError):
    """A program of Postgres is missing, or did not do what it must."""

    code = "dump_failed"


def dumped(url: str, *, programs: Path | None) -> Iterator[bytes]:
    """The database in one snapshot, block by block. Raises ``DumpFailed``, also at the end."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [_program("pg_dump", programs), "--format=custom", "--no-password", *_target(url)],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(url),
        )
        assert process.stdout is not None
        try:
            while block := process.stdout.read(BLOCK):
                yield block
            _check(process, errors)
        finally:
            process.kill()
            process.wait()


def restore(url: str, blocks: Iterable[bytes], *, programs: Path | None) -> None:
    """Make tables and rows of a dump, all or none. Raises ``DumpFailed``."""
    command = [
        *(_program("pg_restore", programs), "--single-transaction", "--exit-on-error"),
        *("--no-owner", "--no-privileges", "--no-password", *_target(url)),
    ]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=errors, env=_environment(url)
        )
        assert process.stdin is not None
        try:
            for block in blocks:
                process.stdin.write(block)
            process.stdin.close()
        except BrokenPipeError:  # it says why on its other stream
            pass
        except BaseException:
            process.kill()
            process.wait()
            raise
        _check(process, errors)


def _check(process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    if process.wait() == 0:
        return
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    reason = lines[0] if lines else f"it ended with exit code {process.returncode}"
    raise DumpFailed(reason)


def _program(name: str, programs: Path | None) -> str:
    path = str(programs) if programs is not None else None
    found = shutil.which(name, path=path)
    if found is None:
        raise DumpFailed(
            f"the program {name} is not in the PATH: install the client programs of the server's "
            "version of Postgres or of a later one (Debian: postgresql-client)"
        )
    return found


def _target(url: str) -> tuple[str, str]:
    """Without the password, which every user of the machine could see.

    Raises ``DumpFailed`` for a URL with a password among its parameters.
    """
    given = database.driver_url(url)
    if {"password", "sslpassword"} & set(given.query):
        raise DumpFailed(
            "every user of this machine would see the password among the parameters of the URL of "
            "Postgres: write it before the @, or set NIGHTSHIFT_DATABASE_PASSWORD_FILE"
        )
    plain = sa.URL.create(
        "postgresql",
        username=given.username,
        host=given.host,
        port=given.port,
        database=given.database,
        query=given.query,
    )
    return "--dbname", plain.render_as_string()


def _environment(url: str) -> dict[str, str]:
    password = database.driver_url(url).password
    return {**os.environ, "LC_ALL": "C"} | ({"PGPASSWORD": str(password)} if password else {})
