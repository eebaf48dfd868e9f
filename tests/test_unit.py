"""What `make unit` chooses: `tests/support/unit.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import unit

TESTS = unit.ROOT / "tests"


@pytest.mark.parametrize(
    ("file", "leads"),
    [
        ("workers/inference/kernels/test_unpadding.py", True),  # imports it itself
        ("support/tiny_models.py", True),
        ("workers/gang/conftest.py", True),  # by tests.support.tiny_models
        ("jobs/decisions/test_chunking.py", False),
        ("jobs/ledger/test_leases.py", False),
        ("workers/test_threads.py", False),  # in a process of its own
    ],
)
def test_a_file_leads_to_torch_by_what_it_imports(file: str, *, leads: bool) -> None:
    assert unit.leads_to_torch(TESTS / file) is leads


def test_an_import_inside_a_function_does_not_count(tmp_path: Path) -> None:
    file = tmp_path / "test_it.py"
    file.write_text("def test_it():\n    import torch\n")
    assert not unit.leads_to_torch(file)


def test_an_import_under_a_condition_counts(tmp_path: Path) -> None:
    file = tmp_path / "test_it.py"
    file.write_text("try:\n    import torch.nn\nexcept ImportError:\n    pass\n")
    assert unit.leads_to_torch(file)


def test_a_unit_test_that_imports_torch_fails() -> None:
    with pytest.raises(AssertionError, match="a unit test must not import torch"):
        unit.NoTorch.find_spec("torch")
    assert unit.NoTorch.find_spec("json") is None


def test_a_test_that_uses_a_server_is_no_unit_test(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert unit.is_unit(request.node)
    monkeypatch.setattr(request.node, "fixturenames", ["tmp_path", "postgres"])
    assert not unit.is_unit(request.node)


@pytest.mark.parametrize("server", ["folder", "s3"])
def test_a_server_as_a_parameter_counts_as_well(
    request: pytest.FixtureRequest, server: str
) -> None:
    assert unit.is_unit(request.node) is (server == "folder")


@pytest.mark.parametrize("mark", unit.EXCLUDED_MARKS)
def test_a_test_that_is_marked_is_no_unit_test(request: pytest.FixtureRequest, mark: str) -> None:
    request.node.add_marker(mark)
    assert not unit.is_unit(request.node)
