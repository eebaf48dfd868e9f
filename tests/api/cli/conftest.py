"""Fixtures: the API of ``tests.api``, and the command line pointed at it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from api import cli
from tests.api.server.conftest import FakeWorkers, fake_workers, installation, tenant
from tests.api.server.installation import Tenant

__all__ = ["FakeWorkers", "fake_workers", "installation", "tenant"]

ROWS = 5


@dataclass(frozen=True)
class Ran:
    """What one command did."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(
    tenant: Tenant,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Runs ``nightshift`` with these arguments, as this test's project."""
    monkeypatch.setenv("NIGHTSHIFT_API_URL", tenant.installation.url)
    monkeypatch.setenv("NIGHTSHIFT_API_KEY", tenant.key)
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> Ran:
        capsys.readouterr()
        code = cli.main(arguments)
        printed = capsys.readouterr()
        return Ran(code=code, out=printed.out, err=printed.err)

    return command


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b"".join(b'{"text": "row %d"}\n' % number for number in range(ROWS)))
    return path
