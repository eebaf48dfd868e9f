"""Autotuning of the batch size: the best size, what is cached, and no row lost during a trial."""

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
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from jobs.settings import Settings
from tests.support.tiny_models import tiny_classifier
from tests.workers.inference.batching.test_memory import LimitedMemoryHead
from tests.workers.inference.builders import loaded, no_beat, some_texts
from workers.inference.batching import autotune, memory
from workers.inference.batching.autotune import CACHE_NAME, BatchSizeTrial
from workers.inference.batching.race import MAX_LAPS, MIN_LAPS
from workers.inference.batching.token_budget import BatchWork, TokenBudget
from workers.inference.tasks.classifier import Classifier, Prediction

SIZES = (512, 1_024, 2_048, 4_096)


def ignore(*_: object) -> None:
    """A callback that does nothing."""


def run_trial(speeds: Mapping[int, float], *, first: float = 1.0) -> tuple[int | None, list[int]]:
    """The best size of a trial in which sizes have these speeds, and the sizes that were kept.

    The first batch of each size is ``first`` times slower.
    """
    kept: list[int] = []
    trial = BatchSizeTrial(list(speeds), keep=kept.append)
    turn = 0
    while not trial.over:
        size = trial.next()
        slower = first if turn < len(speeds) else 1.0
        trial.record(size, tokens=size, seconds=size / speeds[size] * slower)
        turn += 1
    assert turn <= (MAX_LAPS + 1) * len(speeds)
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
    best_size, kept = run_trial(dict(zip(SIZES, speeds, strict=True)), first=first)
    assert (best_size, kept) == (best, [best])


@pytest.mark.parametrize("trend", [-0.4, -0.1, 0.1, 0.4])
@pytest.mark.parametrize(
    ("speeds", "best"), [((1.0, 1.1, 1.15, 1.05), 2_048), ((1.2, 1.1, 1, 1), 512)]
)
def test_rows_that_are_slower_or_faster_than_those_before_do_not_decide(
    speeds: tuple[float, ...], best: int, trend: float
) -> None:
    """Speed changes by ``trend`` over the eight batches of a slice; then the next slice begins."""
    trial, turn = BatchSizeTrial(SIZES, keep=ignore), 0
    while not trial.over:
        size = trial.next()
        speed = speeds[SIZES.index(size)] * (1 + trend * (turn % 8) / 8)
        trial.record(size, tokens=size, seconds=size / speed)
        turn += 1
    assert trial.best() == best


@pytest.mark.parametrize("speeds", [(0.9, 0.95, 1.0, 1.08), (1.0, 1.08, 1.0, 0.92)])
def test_noise_larger_than_what_sizes_differ_by_does_not_decide(speeds: tuple[float, ...]) -> None:
    """The fastest wins in at least 90 of 100 races with times that vary by a tenth."""
    chance, wins = random.Random(0), 0
    for _ in range(100):
        trial = BatchSizeTrial(SIZES, keep=ignore)
        while not trial.over:
            size = trial.next()
            speed = speeds[SIZES.index(size)] * math.exp(chance.gauss(0, 0.1))
            trial.record(size, tokens=size, seconds=size / speed)
        wins += trial.best() == SIZES[speeds.index(max(speeds))]
    assert wins >= 90


def test_a_size_that_is_beaten_in_every_lap_has_no_more_turns() -> None:
    trial, turns = BatchSizeTrial(SIZES, keep=ignore), Counter[int]()
    while not trial.over:
        size = trial.next()
        trial.record(size, tokens=size, seconds=size / (2.0 if size > 512 else 1.0))
        turns[size] += 1
    assert turns == {512: MIN_LAPS + 1} | dict.fromkeys(SIZES[1:], MAX_LAPS + 1)


@pytest.mark.parametrize(("rows", "best"), [(100, None), (1_000, 1_024), (2_000, 2_048)])
def test_the_best_of_what_rows_can_fill_is_used_and_not_kept(rows: int, best: int | None) -> None:
    kept: list[int] = []
    trial, turns = BatchSizeTrial(SIZES, keep=kept.append), 0
    while not trial.over:
        size = trial.next()
        trial.record(size, tokens=min(size, rows), seconds=1.0)
        turns += 1
    assert (trial.best(), kept) == (best, [])
    assert turns <= (MAX_LAPS + 1) * len(SIZES)


@patch.object(memory, "empty_cache", ignore)
@hypothesis_settings(max_examples=50)
@given(st.lists(st.integers(1, 900), max_size=80), st.integers(100, 5_000))
def test_every_item_is_done_once_whatever_fits(lengths: list[int], room: int) -> None:
    done: list[int] = []

    def run(batch: list[int]) -> None:
        if sum(lengths[item] for item in batch) > room:
            raise RuntimeError("out of memory")
        done.extend(batch)

    work = BatchWork(
        length=lambda item: lengths[item],
        run=run,
        refuse=done.append,
        fail=ignore,
        beat=no_beat,
        finish=no_beat,
    )
    budget = TokenBudget(1_024, trial=BatchSizeTrial(SIZES, keep=ignore))
    for _ in range(2):
        budget.run(range(len(lengths)), work)
    assert sorted(done) == sorted(2 * list(range(len(lengths))))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_classifier(tmp_path / "model")


def with_cache(tmp_path: Path, **more: Any) -> Settings:
    return Settings(worker_threads=1, calibration_folder=str(tmp_path / "calibration"), **more)


def kept(tmp_path: Path) -> list[Path]:
    """Cache files with a batch size; other results are in other files."""
    files = (tmp_path / "calibration").glob("*.json")
    return [file for file in files if CACHE_NAME in file.read_text()]


def calibrate(classifier: Classifier) -> None:
    """Classify texts until the trial is over."""
    for seed in range(MAX_LAPS):
        classifier.classify(some_texts(400, longest=60, seed=seed), beat=no_beat)
        if classifier._runner._budget._trial is None:
            return
    pytest.fail("the trial is not over")


def test_the_best_size_is_cached(tmp_path: Path, folder: Path) -> None:
    first = loaded(folder, settings=with_cache(tmp_path))
    assert first._runner.budget == max(SIZES)
    calibrate(first)
    [file] = kept(tmp_path)
    assert first._runner.budget == json.loads(file.read_bytes())["results"][CACHE_NAME]
    again = loaded(folder, settings=with_cache(tmp_path))
    assert (again._runner.budget, again._runner._budget._trial) == (first._runner.budget, None)


@pytest.mark.parametrize("spoil", [lambda file: file.write_text("{"), lambda file: file.unlink()])
def test_a_cache_file_that_is_gone_is_written_again(
    tmp_path: Path, folder: Path, spoil: Callable[[Path], object]
) -> None:
    settings = with_cache(tmp_path)
    calibrate(loaded(folder, settings=settings))
    [file] = kept(tmp_path)
    spoil(file)
    calibrate(loaded(folder, settings=settings))
    assert json.loads(file.read_bytes())["results"][CACHE_NAME] in SIZES


def test_a_size_that_cannot_be_cached_is_used_all_the_same(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "calibration").write_text("a file where the folder should be")
    classifier = loaded(folder, settings=with_cache(tmp_path))
    calibrate(classifier)
    assert classifier._runner.budget in SIZES


@pytest.mark.parametrize("threads", [1, 2])
def test_other_numbers_of_threads_and_int8_are_cached_separately(
    tmp_path: Path, folder: Path, threads: int
) -> None:
    settings = with_cache(tmp_path)
    model = loaded(folder, settings=settings)._runner.head
    torch.set_num_threads(threads)
    for variant in ("classify", "classify in int8"):
        found = autotune.size_or_trial(settings, model=model.model, digest="d", variant=variant)
        assert isinstance(found, BatchSizeTrial)
        found._keep(threads)
    torch.set_num_threads(1)
    assert len(kept(tmp_path)) == 2


def test_a_size_in_the_settings_is_not_tried_for(tmp_path: Path, folder: Path) -> None:
    classifier = loaded(folder, settings=with_cache(tmp_path, batch_tokens=77))
    assert (classifier._runner.budget, classifier._runner._budget._trial) == (77, None)


def test_labels_are_the_same_while_sizes_are_tried(tmp_path: Path, folder: Path) -> None:
    trying = loaded(folder, settings=with_cache(tmp_path))
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
    classifier = loaded(folder, settings=with_cache(tmp_path))
    classifier._runner.head = LimitedMemoryHead(classifier._runner.head, tokens=1_500)
    for seed in range(12):
        found = classifier.classify(some_texts(400, longest=60, seed=seed), beat=no_beat)
        assert all(isinstance(answer, Prediction) for answer in found)
    assert classifier._runner.budget <= 1_024
    assert not kept(tmp_path)
