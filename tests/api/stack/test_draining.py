"""`down` and `up` in the middle of a fine-tune, with every process the real one (promise P7)."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from api.client import Client
from api.stack import up
from api.stack.record import StackInfo
from jobs import database
from jobs.database import Sessions
from jobs.states import RunState
from jobs.tables import Checkpoint, ModelVersion, Point, Run
from tests.support.tiny_models import tiny_classifier
from tests.support.waiting import wait_until
from tests.workers.gang.trainer import jsonl, labelled

pytestmark = pytest.mark.long

STEPS = 2_000
SERVERS = ("DATABASE_URL", "REDIS_URL", "OBJECT_STORE_URL")


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in SERVERS:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"NIGHTSHIFT_{name}", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    parent = Path(tempfile.mkdtemp(prefix="nightshift-draining-"))
    parent.chmod(0o755)
    yield parent / "state"
    up.stop(parent / "state", now=True)
    shutil.rmtree(parent)


def submit(client: Client, home: Path, *, name: str) -> str:
    """A fine-tune whose own checkpoints are minutes apart."""
    corpus = home.with_name("corpus.jsonl")
    corpus.write_bytes(jsonl(labelled(240)))
    train = {"epochs": 1000, "max_steps": STEPS, "batch_rows": 8, "evaluate_steps": 10 * STEPS}
    spec = {
        "kind": "finetune",
        "model": name,
        "base": str(home.with_name("model")),
        "corpus": {"file": client.upload(corpus)["id"]},
        "train": train,
    }
    return str(client.submit(spec)["id"])


def sessions(stack: StackInfo) -> Sessions:
    return database.sessions(database.connect(stack.database_url))


def result(sessions: Sessions, job_id: str) -> tuple[str, dict[int, float]]:
    """The hash of the weights, and the loss by step."""
    with sessions.begin() as session:
        files = session.scalars(
            sa.select(ModelVersion.files).where(ModelVersion.job_id == job_id)
        ).one()
        curve = sa.select(Point.step, Point.value)
        losses = session.execute(curve.where(Point.job_id == job_id, Point.name == "loss")).all()
    weights = next(str(f["sha256"]) for f in files if f["path"].endswith("model.safetensors"))
    return weights, dict(losses)


def runs(sessions: Sessions, job_id: str) -> list[tuple[RunState, int, int]]:
    """State, first step and last step of each run."""
    begun = sa.select(Run.state, sa.func.coalesce(Checkpoint.step, 0), Run.step)
    query = begun.outerjoin(Checkpoint, Checkpoint.id == Run.checkpoint_id)
    with sessions.begin() as session:
        found = session.execute(query.where(Run.job_id == job_id).order_by(Run.number)).all()
    return [(row[0], row[1], row[2]) for row in found]


def test_a_stack_that_is_stopped_and_started_repeats_no_step(home: Path) -> None:
    tiny_classifier(home.with_name("model"))
    stack = up.background(home, allow=[home.with_name("model")])
    with Client(stack.api_url, stack.key) as client:
        undisturbed = submit(client, home, name="undisturbed")
        assert client.wait(undisturbed)["state"] == "succeeded"
        stopped = submit(client, home, name="stopped")
        wait_until(lambda: client.get(stopped)["training"]["step"] > STEPS // 3, seconds=240)
    began = time.monotonic()
    assert up.stop(home)
    print(f"down took {time.monotonic() - began:.1f} s")  # noqa: T201 - a figure for the reader
    stack = up.background(home, allow=[home.with_name("model")])
    with Client(stack.api_url, stack.key) as client:
        assert client.wait(stopped)["state"] == "succeeded"
    ledger = sessions(stack)
    (first, _, last_step), (second, resumed_at, _) = runs(ledger, stopped)
    assert (first, second) == (RunState.PREEMPTED, RunState.SUCCEEDED)
    assert resumed_at == last_step, "no step was repeated"
    assert result(ledger, stopped) == result(ledger, undisturbed)


def test_a_stack_that_is_stopped_at_once_says_which_steps_are_lost(home: Path) -> None:
    tiny_classifier(home.with_name("model"))
    stack = up.background(home, allow=[home.with_name("model")])
    with Client(stack.api_url, stack.key) as client:
        job = submit(client, home, name="hurried")
        wait_until(lambda: client.get(job)["training"]["step"] > 10, seconds=240)
    assert up.stop(home, now=True)
    log = (home / "logs" / "up.log").read_text()
    assert f"of {job}, which goes on from its beginning" in log
    assert "lost: steps 1 to " in log
