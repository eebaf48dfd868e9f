from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import ModelFailure
from jobs.kinds import ClassifyOptions
from jobs.settings import Settings
from tests.support.tiny_models import tiny_classifier
from workers.inference.engine_cache import Shelf

DEFAULT, TWO = ClassifyOptions(), ClassifyOptions(top_k=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_classifier(tmp_path / "model")


@pytest.fixture
def shelf() -> Shelf:
    return Shelf(Settings(worker_threads=1))


def test_a_model_is_loaded_once(shelf: Shelf, folder: Path) -> None:
    assert shelf.engine(folder, DEFAULT) is shelf.engine(folder, ClassifyOptions())


def test_the_same_model_at_another_place_is_not_loaded_again(
    shelf: Shelf, folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert shelf.engine(folder, DEFAULT) is shelf.engine(copy, DEFAULT)


def test_other_options_are_another_engine(shelf: Shelf, folder: Path) -> None:
    assert shelf.engine(folder, DEFAULT) is not shelf.engine(folder, TWO)


def test_a_model_that_was_replaced_in_its_folder_is_loaded_anew(
    shelf: Shelf, folder: Path, tmp_path: Path
) -> None:
    before = shelf.engine(folder, DEFAULT)
    other = tiny_classifier(tmp_path / "other", seed=1)
    shutil.copy(other / "model.safetensors", folder)
    after = shelf.engine(folder, DEFAULT)
    assert after.digest != before.digest


def test_the_model_used_longest_ago_makes_room(shelf: Shelf, folder: Path) -> None:
    first, second = shelf.engine(folder, DEFAULT), shelf.engine(folder, TWO)
    shelf.engine(folder, DEFAULT)
    shelf.engine(folder, ClassifyOptions(top_k=3))
    assert shelf.engine(folder, DEFAULT) is first
    assert shelf.engine(folder, TWO) is not second


def test_a_model_that_cannot_be_loaded_is_not_kept(shelf: Shelf, folder: Path) -> None:
    hidden = (folder / "tokenizer.json").rename(folder / "hidden")
    with pytest.raises(ModelFailure):
        shelf.engine(folder, DEFAULT)
    hidden.rename(folder / "tokenizer.json")
    assert shelf.engine(folder, DEFAULT).digest


def test_what_is_kept_is_shown_with_how_rows_share_batches(folder: Path) -> None:
    shown: list[Any] = []
    shelf = Shelf(Settings(worker_threads=1), size=1, changed=shown.append)
    shelf.engine(folder, DEFAULT, model="tiny@1", kind="classify")
    shelf.engine(folder, DEFAULT, model="tiny@1", kind="classify")
    shelf.engine(folder, TWO, model="tiny@2", kind="classify")
    packed = "packed, without padding"
    assert shown == [
        [{"model": "tiny@1", "kind": "classify", "sharing": packed}],
        [{"model": "tiny@2", "kind": "classify", "sharing": packed}],
    ]
