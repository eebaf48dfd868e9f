"""Layouts of linear layers: the faster one is used and cached, and results do not depend on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from jobs.kinds import EmbedOptions
from jobs.settings import Settings
from tests.support.tiny_models import tiny_classifier, tiny_encoder
from tests.workers.inference.builders import no_beat, predictions, some_texts
from tests.workers.inference.kernels.test_onednn_linear import WIDE, chosen, made
from workers.inference import engine
from workers.inference.batching import race
from workers.inference.kernels import linear_layouts
from workers.inference.kernels.linear_layouts import LinearLayout
from workers.inference.tasks.embedder import Embedding


def with_cache(tmp_path: Path) -> Settings:
    return Settings(calibration_folder=str(tmp_path / "calibration"))


def speeds(plain: float, laid_out: float) -> Any:
    """Within, every race ends at once with these speeds."""
    speeds = {LinearLayout.PLAIN: plain, LinearLayout.PREPACKED: laid_out}
    return patch.object(race, "run", return_value=speeds)


@pytest.mark.parametrize(
    ("laid_out", "best"),
    [(1.2, LinearLayout.PREPACKED), (0.8, LinearLayout.PLAIN), (1.0, LinearLayout.PLAIN)],
)
def test_the_faster_layout_is_used_and_cached(
    tmp_path: Path, laid_out: float, best: LinearLayout
) -> None:
    settings = with_cache(tmp_path)
    with speeds(1.0, laid_out) as run:
        for _ in range(2):
            assert linear_layouts.choice(made(WIDE), settings=settings) is best
    assert run.call_count == 1


def test_another_number_of_threads_races_again(tmp_path: Path) -> None:
    settings, threads = with_cache(tmp_path), torch.get_num_threads()
    with speeds(1.0, 2.0) as run:
        linear_layouts.choice(made(WIDE), settings=settings)
        torch.set_num_threads(threads + 1)
        linear_layouts.choice(made(WIDE), settings=settings)
        torch.set_num_threads(threads)
    assert run.call_count == 2


def test_a_race_without_a_result_in_time_is_not_cached(tmp_path: Path) -> None:
    settings = with_cache(tmp_path)
    with patch.object(race, "run", return_value={}) as run:
        for _ in range(2):
            assert linear_layouts.choice(made(WIDE), settings=settings) is LinearLayout.PLAIN
    assert run.call_count == 2


def test_a_real_race_runs_and_ends(tmp_path: Path) -> None:
    settings = with_cache(tmp_path)
    found = linear_layouts.choice(made(WIDE), settings=settings)
    with patch.object(race, "run") as run:
        assert linear_layouts.choice(made(WIDE), settings=settings) is found
    run.assert_not_called()


def test_small_layers_do_not_race() -> None:
    config = type(WIDE)(**{**WIDE.to_dict(), "hidden_size": 64})
    with patch.object(race, "run") as run:
        assert linear_layouts.choice(made(config), settings=Settings()) is LinearLayout.PLAIN
    run.assert_not_called()


def test_labels_do_not_depend_on_the_layout(tmp_path: Path) -> None:
    folder, texts = tiny_classifier(tmp_path / "model"), some_texts(200)
    found = []
    for layout in LinearLayout:
        with chosen(layout):
            found.append([each.labels for each in predictions(folder, texts)])
    assert found[0] == found[1]


def test_vectors_depend_on_the_layout_by_less_than_promised(tmp_path: Path) -> None:
    folder, texts = tiny_encoder(tmp_path / "model"), dict(enumerate(some_texts(50)))
    found = []
    for layout in LinearLayout:
        with chosen(layout):
            model = engine.load(folder, EmbedOptions(normalize=True), settings=Settings())
        answers = model.answer(texts, beat=no_beat).values()
        found.append(np.stack([each.vector for each in answers if isinstance(each, Embedding)]))
    assert len(found[0]) == len(texts)
    assert np.abs(found[0] - found[1]).max() < 1e-5
