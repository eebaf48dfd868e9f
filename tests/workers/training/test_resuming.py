"""Whoever is killed and goes on ends with the same bits as whoever was left alone."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_models import tiny_encoder
from tests.workers.training.building import Work, labelled, wait_until, weights, work
from tests.workers.training.nursery import Child, Nursery
from workers.training import shutdown

RECIPE = {
    "epochs": 3,
    "batch_rows": 12,
    "batch_tokens": 128,
    "learning_rate": 1e-3,
    "checkpoint_steps": 3,
    "evaluate_steps": 7,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("base") / "tiny")


def made(folder: Path, base: Path, *, processes: int = 1, **train: Any) -> Work:
    data = {"train": labelled(130), "test": labelled(30, seed=1)}
    return work(folder, data=data, base=base, processes=processes, train=RECIPE | train)


def go_on(run: Work) -> None:
    """Prepare as an agent would after a death: from the newest complete checkpoint."""
    if run.checkpoints:
        run.resume_from(run.checkpoints[-1])


def kill_at(run: Work, children: list[Child], *, step: int) -> None:
    """SIGKILL to every rank once the first has told of the step."""
    wait_until(
        lambda: (
            run.curve().get(step) is not None or any(child.poll() is not None for child in children)
        )
    )
    for child in children:
        child.kill()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, base: Path, nursery: Nursery) -> Work:
    run = made(tmp_path_factory.mktemp("undisturbed") / "W", base)
    assert run.run(nursery) == shutdown.DONE, run.log
    return run


def same(ours: Work, theirs: Work) -> bool:
    reports = [json.loads((each.folder / "report.json").read_bytes()) for each in (ours, theirs)]
    return (
        weights(ours.folder / "result") == weights(theirs.folder / "result")
        and ours.curve() == theirs.curve()
        and ours.curve("gradient_norm") == theirs.curve("gradient_norm")
        and ours.curve("validation/loss") == theirs.curve("validation/loss")
        and reports[0] == reports[1]
    )


def ten_steps(*, seed: int) -> list[int]:
    """Ten steps of a training of about 30, in order."""
    return sorted(random.Random(seed).sample(range(1, 28), 10))


def test_ten_kills_at_random_steps_change_no_bit(
    tmp_path: Path, base: Path, undisturbed: Work, nursery: Nursery
) -> None:
    run = made(tmp_path / "W", base)
    for step in ten_steps(seed=4):
        kill_at(run, run.start(nursery), step=step)
        go_on(run)
    assert run.run(nursery) == shutdown.DONE, run.log
    assert same(run, undisturbed)


@pytest.mark.parametrize(
    "steps",
    [(5, 11, 20), pytest.param(ten_steps(seed=5), marks=pytest.mark.long)],
    ids=["thrice", "ten times"],
)
def test_kills_of_two_ranks_change_no_bit(
    tmp_path: Path, base: Path, nursery: Nursery, steps: Sequence[int]
) -> None:
    alone = made(tmp_path / "alone", base, processes=2)
    assert alone.run(nursery) == shutdown.DONE, alone.log
    run = made(tmp_path / "W", base, processes=2)
    for step in steps:
        kill_at(run, run.start(nursery), step=step)
        go_on(run)
    assert run.run(nursery) == shutdown.DONE, run.log
    assert same(run, alone)


def test_three_ranks_go_on_bit_for_bit(tmp_path: Path, base: Path, nursery: Nursery) -> None:
    alone = made(tmp_path / "alone", base, processes=3, epochs=1)
    assert alone.run(nursery) == shutdown.DONE, alone.log
    run = made(tmp_path / "W", base, processes=3, epochs=1)
    kill_at(run, run.start(nursery), step=5)
    go_on(run)
    assert run.run(nursery) == shutdown.DONE, run.log
    assert same(run, alone)


def by_file(run: Work, _: list[Child]) -> None:
    (run.folder / "stop").touch()


def by_signal(_: Work, children: list[Child]) -> None:
    for child in children:
        child.terminate()


@pytest.mark.parametrize("ask", [by_file, by_signal])
def test_a_stop_makes_a_checkpoint_from_which_no_bit_differs(
    tmp_path: Path,
    base: Path,
    undisturbed: Work,
    nursery: Nursery,
    ask: Callable[[Work, list[Child]], None],
) -> None:
    run = made(tmp_path / "W", base)
    children = run.start(nursery)
    wait_until(lambda: 4 in run.curve())
    ask(run, children)
    assert children[0].wait() == shutdown.STOPPED, run.log
    [stopped] = run.told("stopped")
    assert run.told("checkpoint")[-1]["step"] == stopped["step"]
    run.resume_from(run.checkpoints[-1])
    assert run.run(nursery) == shutdown.DONE, run.log
    assert same(run, undisturbed)


def test_two_ranks_stop_at_the_same_step(tmp_path: Path, base: Path, nursery: Nursery) -> None:
    """Ranks ask each other at most every 50 steps: the run is longer than that by far."""
    run = made(tmp_path / "W", base, processes=2, epochs=50, checkpoint_steps=None)
    children = run.start(nursery)
    wait_until(lambda: bool(run.curve()))
    (run.folder / "stop").touch()
    assert [child.wait() for child in children] == [shutdown.STOPPED] * 2, run.log
    assert run.told("stopped", rank=0) == run.told("stopped", rank=1)
    assert {path.name for path in run.checkpoints[-1].iterdir()} >= {
        "rank-00000.pt",
        "rank-00001.pt",
    }


def test_another_number_of_ranks_goes_on_and_says_that_bits_may_differ(
    tmp_path: Path, base: Path, undisturbed: Work, nursery: Nursery
) -> None:
    run = made(tmp_path / "W", base, processes=2)
    kill_at(run, run.start(nursery), step=13)
    go_on(run)
    run.processes = 1
    assert run.run(nursery) == shutdown.DONE, run.log
    assert "bits may differ" in run.log
    assert run.curve().keys() == undisturbed.curve().keys()


def test_a_checkpoint_without_the_generators_of_a_rank_is_refused(
    tmp_path: Path, base: Path, undisturbed: Work, nursery: Nursery
) -> None:
    run = made(tmp_path / "W", base)
    shutil.copytree(undisturbed.checkpoints[-1], run.folder / "resume")
    (run.folder / "resume" / "rank-00000.pt").unlink()
    assert run.run(nursery) not in (shutdown.DONE, shutdown.FAULT, shutdown.STOPPED)
    assert "lacks rank-00000.pt" in run.log


def test_a_checkpoint_has_its_name_only_once_it_is_whole(undisturbed: Work) -> None:
    names = {"optimizer.pt", "rank-00000.pt", "state.json", "weights.pt"}
    assert all({each.name for each in path.iterdir()} == names for path in undisturbed.checkpoints)
    assert not list((undisturbed.folder / "checkpoints").glob("*.tmp"))


def test_the_last_checkpoints_and_the_best_are_kept(undisturbed: Work) -> None:
    told = undisturbed.told("checkpoint")
    best = [each["folder"] for each in told if each["best"]][-1]
    last = [each["folder"] for each in told][-2:]
    assert {path.name for path in undisturbed.checkpoints} == {best, *last}
