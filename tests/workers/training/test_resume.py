"""A run that is killed and resumed ends with the same bits as an undisturbed one (P7)."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_models import tiny_encoder
from tests.workers.training.fork_server import ForkServer, TrainingProcess
from tests.workers.training.work_folder import (
    WorkFolder,
    labelled,
    wait_until,
    weights,
    work_folder,
)
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


def made(folder: Path, base: Path, *, processes: int = 1, **train: Any) -> WorkFolder:
    data = {"train": labelled(130), "test": labelled(30, seed=1)}
    return work_folder(folder, data=data, base=base, processes=processes, train=RECIPE | train)


def prepare_resume(run: WorkFolder) -> None:
    """Prepare a resume as an agent does: from the newest complete checkpoint."""
    if run.checkpoints:
        run.resume_from(run.checkpoints[-1])


def kill_at(run: WorkFolder, children: list[TrainingProcess], *, step: int) -> None:
    """Kill every rank once the first has reported the step."""
    wait_until(
        lambda: (
            run.curve().get(step) is not None or any(child.poll() is not None for child in children)
        )
    )
    for child in children:
        child.kill()


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, base: Path, fork_server: ForkServer
) -> WorkFolder:
    run = made(tmp_path_factory.mktemp("undisturbed") / "W", base)
    assert run.run(fork_server) == shutdown.DONE, run.log
    return run


def same(run: WorkFolder, other: WorkFolder) -> bool:
    reports = [json.loads((each.folder / "report.json").read_bytes()) for each in (run, other)]
    return (
        weights(run.folder / "result") == weights(other.folder / "result")
        and run.curve() == other.curve()
        and run.curve("gradient_norm") == other.curve("gradient_norm")
        and run.curve("validation/loss") == other.curve("validation/loss")
        and reports[0] == reports[1]
    )


def ten_steps(*, seed: int) -> list[int]:
    """Ten steps of a training of about 30, in order."""
    return sorted(random.Random(seed).sample(range(1, 28), 10))


def test_ten_kills_at_random_steps_change_no_bit(
    tmp_path: Path, base: Path, undisturbed: WorkFolder, fork_server: ForkServer
) -> None:
    run = made(tmp_path / "W", base)
    for step in ten_steps(seed=4):
        kill_at(run, run.start(fork_server), step=step)
        prepare_resume(run)
    assert run.run(fork_server) == shutdown.DONE, run.log
    assert same(run, undisturbed)


@pytest.mark.parametrize(
    "steps",
    [(5, 11, 20), pytest.param(ten_steps(seed=5), marks=pytest.mark.long)],
    ids=["thrice", "ten times"],
)
def test_kills_of_two_ranks_change_no_bit(
    tmp_path: Path, base: Path, fork_server: ForkServer, steps: Sequence[int]
) -> None:
    alone = made(tmp_path / "alone", base, processes=2)
    assert alone.run(fork_server) == shutdown.DONE, alone.log
    run = made(tmp_path / "W", base, processes=2)
    for step in steps:
        kill_at(run, run.start(fork_server), step=step)
        prepare_resume(run)
    assert run.run(fork_server) == shutdown.DONE, run.log
    assert same(run, alone)


def test_three_ranks_resume_bit_for_bit(
    tmp_path: Path, base: Path, fork_server: ForkServer
) -> None:
    alone = made(tmp_path / "alone", base, processes=3, epochs=1)
    assert alone.run(fork_server) == shutdown.DONE, alone.log
    run = made(tmp_path / "W", base, processes=3, epochs=1)
    kill_at(run, run.start(fork_server), step=5)
    prepare_resume(run)
    assert run.run(fork_server) == shutdown.DONE, run.log
    assert same(run, alone)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "rank-00000.pt").unlink(), "lacks rank-00000.pt"),
        (lambda folder: (folder / "state.json").write_text("{}"), "cannot be loaded: KeyError"),
        (lambda folder: (folder / "weights.pt").write_bytes(b"no weights"), "cannot be loaded: "),
    ],
    ids=["a rank's file is missing", "written by another release", "no weights"],
)
def test_a_checkpoint_that_no_run_can_resume_from_is_reported(
    tmp_path: Path,
    base: Path,
    fork_server: ForkServer,
    damage: Callable[[Path], object],
    reason: str,
) -> None:
    run = made(tmp_path / "W", base, epochs=1)
    kill_at(run, run.start(fork_server), step=5)
    prepare_resume(run)
    damage(run.folder / "resume")
    assert run.run(fork_server) == shutdown.CRASHED
    (message,) = run.messages("unusable")
    assert reason in message["reason"]


def test_a_stop_in_an_evaluation_is_quick_and_changes_no_bit(
    tmp_path: Path, base: Path, fork_server: ForkServer
) -> None:
    often: dict[str, Any] = {"epochs": 2, "evaluate_steps": 1, "checkpoint_steps": 100}
    alone = made(tmp_path / "alone", base, **often)
    assert alone.run(fork_server) == shutdown.DONE, alone.log
    run = made(tmp_path / "W", base, **often)
    (child,) = run.start(fork_server)
    wait_until(lambda: 4 in run.curve("validation/loss") or child.poll() is not None)
    (run.folder / "stop").touch()
    assert child.wait() == shutdown.STOPPED, run.log
    counters = json.loads((run.checkpoints[-1] / "state.json").read_bytes())["counters"]
    assert counters["evaluation_due"]
    assert counters["step"] not in run.curve("validation/loss")
    prepare_resume(run)
    assert run.run(fork_server) == shutdown.DONE, run.log
    assert same(run, alone)


def by_file(run: WorkFolder, _: list[TrainingProcess]) -> None:
    (run.folder / "stop").touch()


def by_signal(_: WorkFolder, children: list[TrainingProcess]) -> None:
    for child in children:
        child.terminate()


@pytest.mark.parametrize("ask", [by_file, by_signal])
def test_a_stop_saves_a_checkpoint_and_no_bit_differs_after_it(
    tmp_path: Path,
    base: Path,
    undisturbed: WorkFolder,
    fork_server: ForkServer,
    ask: Callable[[WorkFolder, list[TrainingProcess]], None],
) -> None:
    run = made(tmp_path / "W", base)
    children = run.start(fork_server)
    wait_until(lambda: 4 in run.curve())
    ask(run, children)
    assert children[0].wait() == shutdown.STOPPED, run.log
    [stopped] = run.messages("stopped")
    assert run.messages("checkpoint")[-1]["step"] == stopped["step"]
    run.resume_from(run.checkpoints[-1])
    assert run.run(fork_server) == shutdown.DONE, run.log
    assert same(run, undisturbed)


def test_two_ranks_stop_at_the_same_step(
    tmp_path: Path, base: Path, fork_server: ForkServer
) -> None:
    """Ranks exchange requests every 50 steps at most; the run is far longer."""
    run = made(tmp_path / "W", base, processes=2, epochs=50, checkpoint_steps=None)
    children = run.start(fork_server)
    wait_until(lambda: bool(run.curve()))
    (run.folder / "stop").touch()
    assert [child.wait() for child in children] == [shutdown.STOPPED] * 2, run.log
    assert run.messages("stopped", rank=0) == run.messages("stopped", rank=1)
    assert {path.name for path in run.checkpoints[-1].iterdir()} >= {
        "rank-00000.pt",
        "rank-00001.pt",
    }


def test_another_world_size_resumes_and_warns_that_bits_may_differ(
    tmp_path: Path, base: Path, undisturbed: WorkFolder, fork_server: ForkServer
) -> None:
    run = made(tmp_path / "W", base, processes=2)
    kill_at(run, run.start(fork_server), step=13)
    prepare_resume(run)
    run.processes = 1
    assert run.run(fork_server) == shutdown.DONE, run.log
    assert "bits may differ" in run.log
    assert run.curve().keys() == undisturbed.curve().keys()


def test_a_checkpoint_without_the_generators_of_a_rank_is_refused(
    tmp_path: Path, base: Path, undisturbed: WorkFolder, fork_server: ForkServer
) -> None:
    run = made(tmp_path / "W", base)
    shutil.copytree(undisturbed.checkpoints[-1], run.folder / "resume")
    (run.folder / "resume" / "rank-00000.pt").unlink()
    assert run.run(fork_server) not in (shutdown.DONE, shutdown.FAULT, shutdown.STOPPED)
    assert "lacks rank-00000.pt" in run.log


def test_a_checkpoint_has_its_final_name_only_once_it_is_complete(undisturbed: WorkFolder) -> None:
    names = {"optimizer.pt", "rank-00000.pt", "state.json", "weights.pt"}
    assert all({each.name for each in path.iterdir()} == names for path in undisturbed.checkpoints)
    assert not list((undisturbed.folder / "checkpoints").glob("*.tmp"))


def test_the_last_checkpoints_and_the_best_are_kept(undisturbed: WorkFolder) -> None:
    messages = undisturbed.messages("checkpoint")
    best = [each["folder"] for each in messages if each["best"]][-1]
    last = [each["folder"] for each in messages][-2:]
    assert {path.name for path in undisturbed.checkpoints} == {best, *last}
