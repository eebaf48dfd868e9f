"""Tests side by side: what `pytest -n 2 --dist loadgroup` may run at the same time.

Every worker of pytest-xdist starts servers of its own, on ports of its own. The tests of one file,
or of one folder whose files share an installation, stay together on one worker, since what they
share takes seconds to start. Tests that are marked ``alone`` follow one another on one worker.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED_FOLDERS = frozenset({"faults", "workers/gang", "workers/bulk/kinds"})
"""Folders with fixtures for the whole package: processes that all its files use."""


def pytest_configure() -> None:
    if is_worker():
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # the cores are taken by the other workers


@pytest.hookimpl(tryfirst=True)  # the mark must be there when xdist looks for it
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if is_worker():
        for item in items:
            item.add_marker(pytest.mark.xdist_group(group(item)))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Fail where xdist has not taken the groups: tests that share servers would run together."""
    ids = [item.nodeid for item in session.items]
    if getattr(session.config.option, "loadgroup", False) and not all("@" in each for each in ids):
        raise pytest.UsageError("this pytest-xdist cannot group the tests of this pytest")


def is_worker() -> bool:
    return "PYTEST_XDIST_WORKER" in os.environ


def group(item: pytest.Item) -> str:
    """The name that tests have in common which must not run at the same time."""
    if item.get_closest_marker("alone"):
        return "alone"
    file = item.path.relative_to(ROOT)
    folder = file.parent.as_posix()
    return folder if folder in SHARED_FOLDERS else file.as_posix()
