"""The folder of one rank: data, base model and checkpoint are brought here before it begins."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jobs import kinds
from jobs.errors import CheckpointDamaged, Damaged
from jobs.ledger import checkpoints as ledger
from jobs.models import bundles
from jobs.queries import checkpoints, chunks
from jobs.tables import Checkpoint
from workers.context import Context
from workers.gang.rank_lease import Attendance


def make(host_folder: Path, *, run_id: str, rank: int) -> Path:
    """A new, empty folder."""
    folder = host_folder / f"{run_id}-{rank}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def prepare(folder: Path, attendance: Attendance, *, context: Context) -> None:
    """Bring the data, and the checkpoint to resume from.

    Raises ``Damaged`` for data, ``CheckpointDamaged``, and ``OSError`` for what may pass.
    """
    _bring_data(folder, attendance, context=context)
    if attendance.held.checkpoint_id is not None:
        _bring_checkpoints(folder, attendance, context=context)


def write_run(folder: Path, attendance: Attendance, *, processes: int) -> Path:
    """Write ``run.json``."""
    held = attendance.held
    return _write_json(
        folder / "run.json",
        {
            "job_id": held.job_id,
            "run_number": held.fence,
            "rank": held.rank,
            "machines": held.machines,
            "processes": processes,
            "spec": held.spec.model_dump(mode="json"),
            "dataset": held.dataset,
            "base": held.model_pinned or reference_of(held.spec),
            "code_version": code_version(),
        },
    )


def write_evaluation(
    folder: Path, attendance: Attendance, *, split: str, models: dict[str, Path]
) -> Path:
    """Write ``evaluate.json`` for these models on one split.

    Candidates of a promotion are each read as they were trained, which their folders say.
    """
    held, spec = attendance.held, attendance.held.spec
    alone = isinstance(spec, kinds.EvaluateSpec)
    recipe = spec.train if isinstance(spec, kinds.FinetuneSpec) else spec
    return _write_json(
        folder / "evaluate.json",
        {
            "job_id": held.job_id,
            "task": spec.task,
            "signature": (held.dataset or {}).get("signature") if alone else None,
            "multi_label": spec.multi_label,
            "split": split,
            "batch_tokens": recipe.batch_tokens,
            "max_tokens": recipe.max_tokens,
            "models": [{"name": name, "folder": str(path)} for name, path in models.items()],
        },
    )


def code_version() -> str:
    """The version of this code, for lineages."""
    return f"nightshift {version('nightshift')}"


def _bring_data(folder: Path, attendance: Attendance, *, context: Context) -> None:
    with context.sessions.begin() as session:
        shards = chunks.shards(session, attendance.held.job_id)
    counts: dict[str, int] = {}
    for shard in shards:
        attendance.check()
        index = counts.get(shard.split, 0)
        counts[shard.split] = index + 1
        path = f"{shard.split}/{index:06d}.parquet"
        file = {"path": path, "key": shard.object_key, "sha256": shard.sha256}
        bundles.download(context.store, [file], folder / "data", beat=attendance.beat)


@contextmanager
def with_base(folder: Path, attendance: Attendance, *, context: Context) -> Iterator[None]:
    """The model that the job begins with is at ``base`` while the block runs; none from scratch."""
    held = attendance.held
    reference = held.model_pinned or reference_of(held.spec)
    if reference is None:
        yield
        return
    models = context.artefacts
    with models.using(reference, project_id=held.project_id, beat=attendance.check) as found:
        (folder / "base").symlink_to(found, target_is_directory=True)
        yield


def reference_of(spec: kinds.AnyTraining) -> str | None:
    """The model that a job begins with, as its spec names it."""
    return spec.base if isinstance(spec, kinds.FinetuneSpec) else spec.model


def _bring_checkpoints(folder: Path, attendance: Attendance, *, context: Context) -> None:
    held = attendance.held
    assert held.checkpoint_id is not None
    with context.sessions.begin() as session:
        newest = checkpoints.get(session, held.checkpoint_id)
        best = newest and checkpoints.best(session, held.job_id, up_to_step=newest.step)
    if newest is None:
        raise CheckpointDamaged("the checkpoint to resume from was found damaged by another rank")
    _bring(folder / "resume", newest, attendance, context=context)
    if best is not None and best.id != newest.id:
        _bring(folder / "best", best, attendance, context=context)


def _bring(
    target: Path, checkpoint: Checkpoint, attendance: Attendance, *, context: Context
) -> None:
    try:
        files = _manifest(checkpoint, context=context)["files"]
        bundles.download(context.store, files, target, beat=attendance.beat)
    except (FileNotFoundError, Damaged, ValueError, KeyError, TypeError) as damage:
        reason = f"the checkpoint of step {checkpoint.step} is damaged: {damage}"
        with context.sessions.begin() as session:
            ledger.mark_damaged(session, attendance.held, checkpoint.id, reason=reason)
        raise CheckpointDamaged(reason) from damage


def _manifest(checkpoint: Checkpoint, *, context: Context) -> dict[str, Any]:
    data = context.store.get(checkpoint.manifest_key)
    if hashlib.sha256(data).hexdigest() != checkpoint.manifest_sha256:
        raise ValueError("its manifest has changed")
    found: dict[str, Any] = json.loads(data)
    return found


def _write_json(path: Path, value: dict[str, Any]) -> Path:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
    return path
