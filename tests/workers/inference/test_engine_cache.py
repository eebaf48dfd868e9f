from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import ModelFailure
from jobs.kinds import ClassifyOptions
from jobs.settings import Settings
from tests.support.tiny_models import tiny_classifier
from workers.inference.engine_cache import EngineCache

DEFAULT, TWO = ClassifyOptions(), ClassifyOptions(top_k=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_classifier(tmp_path / "model")


@pytest.fixture
def cache() -> EngineCache:
    return EngineCache(Settings(worker_threads=1))


def test_a_model_is_loaded_once(cache: EngineCache, folder: Path) -> None:
    assert cache.engine(folder, DEFAULT) is cache.engine(folder, ClassifyOptions())


def test_the_same_model_at_another_place_is_not_loaded_again(
    cache: EngineCache, folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert cache.engine(folder, DEFAULT) is cache.engine(copy, DEFAULT)


def test_other_options_are_another_engine(cache: EngineCache, folder: Path) -> None:
    assert cache.engine(folder, DEFAULT) is not cache.engine(folder, TWO)


def test_a_model_that_was_replaced_in_its_folder_is_loaded_again(
    cache: EngineCache, folder: Path, tmp_path: Path
) -> None:
    before = cache.engine(folder, DEFAULT)
    other = tiny_classifier(tmp_path / "other", seed=1)
    shutil.copy(other / "model.safetensors", folder)
    after = cache.engine(folder, DEFAULT)
    assert after.digest != before.digest


def test_the_model_used_longest_ago_makes_room(cache: EngineCache, folder: Path) -> None:
    first, second = cache.engine(folder, DEFAULT), cache.engine(folder, TWO)
    cache.engine(folder, DEFAULT)
    cache.engine(folder, ClassifyOptions(top_k=3))
    assert cache.engine(folder, DEFAULT) is first
    assert cache.engine(folder, TWO) is not second


def test_a_model_that_cannot_be_loaded_is_not_kept(cache: EngineCache, folder: Path) -> None:
    hidden = (folder / "tokenizer.json").rename(folder / "hidden")
    with pytest.raises(ModelFailure):
        cache.engine(folder, DEFAULT)
    hidden.rename(folder / "tokenizer.json")
    assert cache.engine(folder, DEFAULT).digest


def test_what_is_kept_is_shown_with_how_rows_share_batches(folder: Path) -> None:
    shown: list[Any] = []
    cache = EngineCache(Settings(worker_threads=1), size=1, changed=shown.append)
    cache.engine(folder, DEFAULT, model="tiny@1", kind="classify")
    cache.engine(folder, DEFAULT, model="tiny@1", kind="classify")
    cache.engine(folder, TWO, model="tiny@2", kind="classify")
    packed = "packed, without padding"
    assert shown == [
        [{"model": "tiny@1", "kind": "classify", "sharing": packed}],
        [{"model": "tiny@2", "kind": "classify", "sharing": packed}],
    ]
