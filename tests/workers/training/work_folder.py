"""Work folders as an agent makes them, and runs of the training program in them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.models.signatures import Signature
from tests.support.tiny_models import LABELS, SENTENCES, tiny_encoder
from tests.workers.training.fork_server import ForkServer, TrainingProcess
from workers.training import launch

Row = tuple[str, str | None]

SCHEMA = pa.schema(
    [("row", pa.int64()), ("line", pa.int64()), ("text", pa.string()), ("target", pa.string())]
)
TOPICS = dict(zip(LABELS, ((0, 5), (1, 6), (2, 7), (3, 8)), strict=True))


def labelled(rows: int, *, seed: int = 0) -> list[Row]:
    """Texts of several lengths whose words determine their label."""
    chance = random.Random(seed)
    corpus: list[Row] = []
    for number in range(rows):
        label = LABELS[number % len(LABELS)]
        words = " ".join(SENTENCES[each] for each in TOPICS[label]).split()
        corpus.append((" ".join(chance.choices(words, k=chance.randint(2, 24))), label))
    chance.shuffle(corpus)
    return corpus


def write_shards(folder: Path, rows: Sequence[Row], *, per_shard: int = 40) -> None:
    folder.mkdir(parents=True)
    for shard, start in enumerate(range(0, len(rows), per_shard)):
        shard_rows = rows[start : start + per_shard]
        numbers = list(range(start, start + len(shard_rows)))
        columns = [
            numbers,
            [number + 1 for number in numbers],
            [text for text, _ in shard_rows],
            [target for _, target in shard_rows],
        ]
        table = pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA)
        pq.write_table(table, folder / f"{shard:06}.parquet")


@dataclass
class WorkFolder:
    """A work folder."""

    folder: Path
    machines: int = 1
    processes: int = 1

    @property
    def run_file(self) -> Path:
        return self.folder / "run.json"

    @property
    def checkpoints(self) -> list[Path]:
        return sorted((self.folder / "checkpoints").glob("step-?????????"))

    def messages(self, message_type: str, *, rank: int = 0) -> list[dict[str, Any]]:
        """The complete messages of a rank that have this type."""
        path = self.folder / "told" / f"{rank}.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        messages = [json.loads(line) for line in lines if line.endswith("\n")]
        return [message for message in messages if message["type"] == message_type]

    def curve(self, name: str = "loss") -> dict[int, float]:
        """A metric's values by step; a repeated step has its last value."""
        points = self.messages("points")
        return {each["step"]: each["values"][name] for each in points if name in each["values"]}

    def start(self, fork_server: ForkServer) -> list[TrainingProcess]:
        """Every rank of the run, as a launcher would start them."""
        ranks = self.machines * self.processes
        port = str(free_port())
        shared = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return [
            fork_server.start(
                self.run_file,
                log=self.folder / "log",
                environment={"RANK": str(rank), "LOCAL_RANK": str(rank), **shared}
                if ranks > 1
                else {},
            )
            for rank in range(ranks)
        ]

    def run(self, fork_server: ForkServer) -> int:
        """Run to the end; the exit status, the highest of all ranks."""
        children = self.start(fork_server)
        try:
            return max((child.wait() for child in children), key=abs)
        finally:
            for child in children:
                child.kill()

    def launch(self, *, rank: int = 0, port: int | None = None) -> subprocess.Popen[bytes]:
        """Start the launcher of one host, in its own process group."""
        spec = json.loads(self.run_file.read_bytes())["spec"]
        arguments, environment = launch.command(
            machines=self.machines,
            rank=rank,
            processes=self.processes,
            address="127.0.0.1",
            port=port or free_port(),
            mixed_precision=spec["train"].get("mixed_precision", "no"),
            accelerate=None,
            run=self.run_file,
            cpu=True,
        )
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                arguments,
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def resume_from(self, checkpoint: Path) -> None:
        """Copy a checkpoint, and the best one, to where the program resumes from."""
        for name, source in (("resume", checkpoint), ("best", self._best(checkpoint))):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            if source is not None:
                shutil.copytree(source, self.folder / name)
        (self.folder / "stop").unlink(missing_ok=True)

    def _best(self, checkpoint: Path) -> Path | None:
        step = json.loads((checkpoint / "state.json").read_bytes())["counters"]["best_step"]
        best = self.folder / "checkpoints" / f"step-{step or 0:09}"
        return best if step is not None and best != checkpoint else None

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


def work_folder(
    folder: Path,
    *,
    data: Mapping[str, Sequence[Row]],
    base: Path | None = None,
    labels: Sequence[str] | None = LABELS,
    machines: int = 1,
    processes: int = 1,
    train: dict[str, Any] | None = None,
    signature: Signature | None = None,
    **spec: Any,
) -> WorkFolder:
    """A work folder with these rows; the default base is a tiny BERT."""
    folder.mkdir(parents=True)
    for split, rows in data.items():
        write_shards(folder / "data" / split, rows)
    if "architecture" not in spec:
        base = base or tiny_encoder(folder / "tiny")
        (folder / "base").symlink_to(base)
        spec["base"] = "tiny@1"
    spec = {"kind": "finetune", "corpus": {"file": "file-1"}, "model": "it", **spec}
    config = {
        "job_id": "job-1",
        "run_number": 1,
        "rank": 0,
        "machines": machines,
        "processes": processes,
        "spec": spec | {"train": train or {}},
        "dataset": {
            "labels": labels,
            "splits": {},
            "signature": signature and signature.model_dump(mode="json"),
        },
        "code_version": "test",
    }
    (folder / "run.json").write_text(json.dumps(config))
    return WorkFolder(folder, machines=machines, processes=processes)


def ended(process: subprocess.Popen[bytes], *, seconds: float = 240) -> int:
    try:
        return process.wait(timeout=seconds)
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the launcher and every rank."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_until(fact: Callable[[], bool], *, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def weights(folder: Path) -> bytes:
    """The bytes of a model's weights."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob("*.safetensors")))
