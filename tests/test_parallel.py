"""Which tests pytest-xdist keeps together: `tests/support/parallel.py`."""

from __future__ import annotations

import re

import pytest

from tests.support import parallel


def test_the_tests_of_a_file_stay_together(request: pytest.FixtureRequest) -> None:
    assert parallel.group(request.node) == "test_parallel.py"


def test_tests_that_measure_the_machine_follow_one_another(request: pytest.FixtureRequest) -> None:
    request.node.add_marker("alone")
    assert parallel.group(request.node) == "alone"


def test_the_files_of_a_package_with_shared_processes_stay_together(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request.node, "path", parallel.ROOT / "faults" / "test_api.py")
    assert parallel.group(request.node) == "faults"


def test_every_folder_with_fixtures_for_its_package_is_named() -> None:
    shared = {
        file.parent.relative_to(parallel.ROOT).as_posix()
        for file in parallel.ROOT.rglob("conftest.py")
        if re.search(r'scope="package"', file.read_text(encoding="utf-8"))
    }
    assert shared == parallel.SHARED_FOLDERS
