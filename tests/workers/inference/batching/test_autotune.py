"""The size of batches: which is best, what is remembered, and that no row is lost meanwhile."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.settings import Settings
from tests.support.tiny_models import tiny_classifier
from tests.workers.inference.batching.test_memory import Cramped
from tests.workers.inference.building import loaded, no_beat, some_texts
from workers.inference.batching import autotune, memory
from workers.inference.batching.autotune import VERDICT, Trial
from workers.inference.batching.race import LAPS, PATIENCE
from workers.inference.batching.token_budget import Budget, Work
from workers.inference.tasks.classifier import Classifier, Prediction

SIZES = (512, 1_024, 2_048, 4_096)


def nobody(*_: object) -> None:
    """Who keeps nothing, and gives nothing back."""


def tried(speeds: Mapping[int, float], *, first: float = 1.0) -> tuple[int | None, list[int]]:
    """What comes of a trial in which sizes have these speeds, and what was kept.

    The first batch of each is so many times slower.
    """
    kept: list[int] = []
    trial = Trial(list(speeds), keep=kept.append)
    turn = 0
    while not trial.over:
        size = trial.next()
        slower = first if turn < len(speeds) else 1.0
        trial.note(size, tokens=size, seconds=size / speeds[size] * slower)
        turn += 1
    assert turn <= (PATIENCE + 1) * len(speeds)
    return trial.best(), kept


@pytest.mark.parametrize(
    ("speeds", "best"),
    [
        ((1.0, 2.0, 3.0, 4.0), 4_096),
        ((1.0, 3.0, 2.0, 1.0), 1_024),
        ((1.0, 2.0, 2.01, 2.005), 4_096),
        ((5.0, 5.0, 5.0, 5.0), 4_096),
    ],
)
@pytest.mark.parametrize("first", [1.0, 100.0])
def test_the_largest_of_the_fastest_is_best(
    speeds: tuple[float, ...], best: int, first: float
) -> None:
    found, kept = tried(dict(zip(SIZES, speeds, strict=True)), first=first)
    assert (found, kept) == (best, [best])


@pytest.mark.parametrize("trend", [-0.4, -0.1, 0.1, 0.4])
@pytest.mark.parametrize(
    ("speeds", "best"), [((1.0, 1.1, 1.15, 1.05), 2_048), ((1.2, 1.1, 1, 1), 512)]
)
def test_rows_that_are_slower_or_faster_than_those_before_do_not_decide(
    speeds: tuple[float, ...], best: int, trend: float
) -> None:
    """From batch to batch of a slice by so much of the first's speed; then the next slice comes."""
    trial, turn = Trial(SIZES, keep=nobody), 0
    while not trial.over:
        size = trial.next()
        speed = speeds[SIZES.index(size)] * (1 + trend * (turn % 8) / 8)
        trial.note(size, tokens=size, seconds=size / speed)
        turn += 1
    assert trial.best() == best


@pytest.mark.parametrize("speeds", [(0.9, 0.95, 1.0, 1.08), (1.0, 1.08, 1.0, 0.92)])
def test_noise_larger_than_what_sizes_differ_by_does_not_decide(speeds: tuple[float, ...]) -> None:
    """Of a hundred races with times that vary by a tenth, in all but a few the fastest wins."""
    chance, wins = random.Random(0), 0
    for _ in range(100):
        trial = Trial(SIZES, keep=nobody)
        while not trial.over:
            size = trial.next()
            speed = speeds[SIZES.index(size)] * math.exp(chance.gauss(0, 0.1))
            trial.note(size, tokens=size, seconds=size / speed)
        wins += trial.best() == SIZES[speeds.index(max(speeds))]
    assert wins >= 90


def test_a_size_that_is_beaten_in_every_lap_has_no_more_turns() -> None:
    trial, turns = Trial(SIZES, keep=nobody), Counter[int]()
    while not trial.over:
        size = trial.next()
        trial.note(size, tokens=size, seconds=size / (2.0 if size > 512 else 1.0))
        turns[size] += 1
    assert turns == {512: LAPS + 1} | dict.fromkeys(SIZES[1:], PATIENCE + 1)


@pytest.mark.parametrize(("rows", "best"), [(100, None), (1_000, 1_024), (2_000, 2_048)])
def test_the_best_of_what_rows_can_fill_is_used_and_not_kept(rows: int, best: int | None) -> None:
    kept: list[int] = []
    trial, turns = Trial(SIZES, keep=kept.append), 0
    while not trial.over:
        size = trial.next()
        trial.note(size, tokens=min(size, rows), seconds=1.0)
        turns += 1
    assert (trial.best(), kept) == (best, [])
    assert turns <= (PATIENCE + 1) * len(SIZES)


@patch.object(memory, "give_back", nobody)
@settings(max_examples=50)
@given(st.lists(st.integers(1, 900), max_size=80), st.integers(100, 5_000))
def test_every_item_is_done_once_whatever_fits(lengths: list[int], room: int) -> None:
    done: list[int] = []

    def run(batch: list[int]) -> None:
        if sum(lengths[item] for item in batch) > room:
            raise RuntimeError("out of memory")
        done.extend(batch)

    work = Work(
        length=lambda item: lengths[item],
        run=run,
        refuse=done.append,
        fail=nobody,
        beat=no_beat,
        finish=no_beat,
    )
    budget = Budget(1_024, trial=Trial(SIZES, keep=nobody))
    for _ in range(2):
        budget.do(range(len(lengths)), work)
    assert sorted(done) == sorted(2 * list(range(len(lengths))))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_classifier(tmp_path / "model")


def remembering(tmp_path: Path, **more: Any) -> Settings:
    return Settings(worker_threads=1, calibration_folder=str(tmp_path / "calibration"), **more)


def kept(tmp_path: Path) -> list[Path]:
    """Files with a size of batches; other verdicts lie in others."""
    files = (tmp_path / "calibration").glob("*.json")
    return [file for file in files if VERDICT in file.read_text()]


def calibrate(classifier: Classifier) -> None:
    """Texts until the trial has come to its end."""
    for seed in range(PATIENCE):
        classifier.classify(some_texts(400, longest=60, seed=seed), beat=no_beat)
        if classifier._meter._budget._trial is None:
            return
    pytest.fail("the trial has not come to its end")


def test_what_was_found_is_remembered(tmp_path: Path, folder: Path) -> None:
    first = loaded(folder, settings=remembering(tmp_path))
    assert first._meter.budget == max(SIZES)
    calibrate(first)
    [file] = kept(tmp_path)
    assert first._meter.budget == json.loads(file.read_bytes())["verdicts"][VERDICT]
    again = loaded(folder, settings=remembering(tmp_path))
    assert (again._meter.budget, again._meter._budget._trial) == (first._meter.budget, None)


@pytest.mark.parametrize("spoil", [lambda file: file.write_text("{"), lambda file: file.unlink()])
def test_a_memory_that_is_gone_is_made_anew(
    tmp_path: Path, folder: Path, spoil: Callable[[Path], object]
) -> None:
    remembered = remembering(tmp_path)
    calibrate(loaded(folder, settings=remembered))
    [file] = kept(tmp_path)
    spoil(file)
    calibrate(loaded(folder, settings=remembered))
    assert json.loads(file.read_bytes())["verdicts"][VERDICT] in SIZES


def test_what_cannot_be_remembered_is_used_all_the_same(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "calibration").write_text("a file where the folder should be")
    classifier = loaded(folder, settings=remembering(tmp_path))
    calibrate(classifier)
    assert classifier._meter.budget in SIZES


@pytest.mark.parametrize("threads", [1, 2])
def test_other_numbers_of_threads_and_int8_are_remembered_apart(
    tmp_path: Path, folder: Path, threads: int
) -> None:
    remembered = remembering(tmp_path)
    model = loaded(folder, settings=remembered)._meter.family
    torch.set_num_threads(threads)
    for kind in ("classify", "classify in int8"):
        found = autotune.trial(remembered, model=model.model, digest="d", kind=kind)
        assert isinstance(found, Trial)
        found._keep(threads)
    torch.set_num_threads(1)
    assert len(kept(tmp_path)) == 2


def test_a_size_in_the_settings_is_not_tried_for(tmp_path: Path, folder: Path) -> None:
    classifier = loaded(folder, settings=remembering(tmp_path, batch_tokens=77))
    assert (classifier._meter.budget, classifier._meter._budget._trial) == (77, None)


def test_labels_are_the_same_while_sizes_are_tried(tmp_path: Path, folder: Path) -> None:
    trying = loaded(folder, settings=remembering(tmp_path))
    settled = loaded(folder, settings=Settings(worker_threads=1, batch_tokens=64))
    for seed in range(3):
        texts = some_texts(200, longest=60, seed=seed)
        for one, other in zip(
            trying.classify(texts, beat=no_beat), settled.classify(texts, beat=no_beat), strict=True
        ):
            assert isinstance(one, Prediction)
            assert isinstance(other, Prediction)
            assert one.labels == other.labels


def test_memory_that_ends_during_the_trial_bounds_it(tmp_path: Path, folder: Path) -> None:
    classifier = loaded(folder, settings=remembering(tmp_path))
    classifier._meter.family = Cramped(classifier._meter.family, room=1_500)
    for seed in range(12):
        found = classifier.classify(some_texts(400, longest=60, seed=seed), beat=no_beat)
        assert all(isinstance(answer, Prediction) for answer in found)
    assert classifier._meter.budget <= 1_024
    assert not kept(tmp_path)
