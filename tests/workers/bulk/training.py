"""Builders of training jobs with corpora of a few rows, and of folders that look like models."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.corpora.schemas import TRAINING_SCHEMA
from jobs.kinds.datasets import Dataset
from jobs.objects import ObjectStore
from jobs.queries import chunks as chunk_queries
from jobs.states import JobState
from jobs.tables import Job, Shard
from tests.workers.bulk.conftest import Workshop, jsonl
from workers.bulk import planner
from workers.context import Context

Rows = list[dict[str, Any]]
MODEL_FOLDER = "model-{}"

GOOD: Rows = [{"text": f"text {n}", "label": ("sports", "体育", "world")[n % 3]} for n in range(30)]


def corpus(workshop: Workshop, rows: Rows | bytes, name: str = "a.jsonl") -> dict[str, str]:
    data = rows if isinstance(rows, bytes) else jsonl(rows)
    return {"file": workshop.upload(data, name=name)}


def planned(workshop: Workshop, context: Context, kind: str = "finetune", **fields: Any) -> Job:
    """A job after its planning; corpora are given as rows."""
    for name in ("corpus", "validation", "test"):
        if name in fields:
            fields[name] = corpus(workshop, fields[name])
    job_id = workshop.training(kind, **fields)
    planner.plan(job_id, context=context)
    return workshop.ledger.job(job_id)


def failure(workshop: Workshop, context: Context, kind: str = "finetune", **fields: Any) -> str:
    """Code and message of a job that could not be planned; asserts that it left no shards."""
    job = planned(workshop, context, kind, **fields)
    assert job.state is JobState.FAILED
    assert (job.dataset, job.rows_total, shards(workshop, job.id)) == (None, None, [])
    return f"{job.error_code}: {job.error_message}"


def shards(workshop: Workshop, job_id: str) -> list[Shard]:
    with workshop.ledger.sessions.begin() as session:
        return chunk_queries.shards(session, job_id)


def table(workshop: Workshop, shard: Shard) -> pa.Table:
    data = workshop.store.get(shard.object_key)
    assert hashlib.sha256(data).hexdigest() == shard.sha256
    found = pq.read_table(io.BytesIO(data))
    assert found.schema.equals(TRAINING_SCHEMA)
    assert (found["row"][0].as_py(), found.num_rows) == (shard.first_row, shard.rows)
    return found


def rows_of(workshop: Workshop, job_id: str, split: str) -> Rows:
    of_split = [shard for shard in shards(workshop, job_id) if shard.split == split]
    found: Rows = [row for shard in of_split for row in table(workshop, shard).to_pylist()]
    return found


def facts(job: Job) -> Dataset:
    assert job.dataset is not None
    return Dataset.from_json(job.dataset)


def labels(*names: str) -> Rows:
    return [{"text": "a", "label": name} for name in names]


class InterruptedStore(ObjectStore):
    """The store, which calls ``then`` after the first shard was written."""

    def __init__(self, workshop: Workshop, *, then: Callable[[], object]) -> None:
        super().__init__(workshop.store._backend)
        self._then = [then]

    def put(self, key: str, data: bytes | memoryview) -> None:
        super().put(key, data)
        while self._then:
            self._then.pop()()


def model(
    context: Context,
    *,
    labels: tuple[str, ...] | None,
    architecture: str = "BertForSequenceClassification",
) -> str:
    """A folder that looks like a model's: config, tokenizer, and one tensor of four bytes."""
    name = MODEL_FOLDER.format("-".join(labels or ()))
    folder = Path(context.settings.artefact_cache).parent / name
    folder.mkdir()
    config: dict[str, Any] = {"architectures": [architecture], "model_type": "bert"}
    if labels is not None:
        config["id2label"] = dict(enumerate(labels))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    weights = struct.pack("<Q", len(header)) + header + bytes(4)
    (folder / "model.safetensors").write_bytes(weights)
    return str(folder)
