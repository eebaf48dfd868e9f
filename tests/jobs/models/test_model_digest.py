"""A model's digest covers every file that its results depend on, and no other."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from jobs.models import model_digest
from tests.support.tiny_models import tiny_classifier


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_classifier(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "model")


def test_a_copied_folder_has_the_same_digest(folder: Path, saved: Path) -> None:
    assert model_digest.digest(folder) == model_digest.digest(saved)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_one_changed_byte_changes_the_digest(folder: Path, name: str) -> None:
    before = model_digest.digest(folder)
    content = (folder / name).read_bytes()
    changed = content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]
    (folder / name).write_bytes(changed if name == "model.safetensors" else content + b" ")
    assert model_digest.digest(folder) != before


def test_a_readme_does_not_change_the_digest(folder: Path) -> None:
    before = model_digest.digest(folder)
    (folder / "README.md").write_text("new")
    assert model_digest.digest(folder) == before


def test_weights_are_not_read_again_for_the_digest(folder: Path) -> None:
    before = model_digest.digest(folder)
    path = folder / "model.safetensors"
    state, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert model_digest.digest(folder) == before
