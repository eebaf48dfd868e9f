"""The work folder of one rank, with its data, base model and checkpoint."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs import distribution, kinds
from jobs.errors import CheckpointDamaged, Damaged
from jobs.ledger import checkpoints as ledger
from jobs.models import bundles
from jobs.queries import checkpoints, chunks
from jobs.tables import Checkpoint
from workers.context import Context
from workers.gang.rank_lease import HeldRank


def make(host_folder: Path, *, run_id: str, rank: int) -> Path:
    """Make a new, empty folder."""
    folder = host_folder / f"{run_id}-{rank}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def prepare(folder: Path, held: HeldRank, *, context: Context) -> None:
    """Download the data and the checkpoint to resume from.

    Raises ``Damaged`` for data, ``CheckpointDamaged``, and ``OSError`` for a transient fault.
    """
    _download_data(folder, held, context=context)
    if held.lease.checkpoint_id is not None:
        _download_checkpoints(folder, held, context=context)


def write_run(folder: Path, held: HeldRank, *, processes: int) -> Path:
    """Write ``run.json``, which ``workers.training.run_config`` reads."""
    lease = held.lease
    return _write_json(
        folder / "run.json",
        {
            "job_id": lease.job_id,
            "run_number": lease.fence,
            "rank": lease.rank,
            "machines": lease.machines,
            "processes": processes,
            "spec": lease.spec.model_dump(mode="json"),
            "dataset": lease.dataset,
            "base": lease.model_pinned or reference_of(lease.spec),
            "code_version": code_version(),
        },
    )


def write_evaluation(folder: Path, held: HeldRank, *, split: str, models: dict[str, Path]) -> Path:
    """Write ``evaluate.json``, which ``workers.training.evaluate`` reads.

    The models of a promotion are each evaluated with the signature in their own folder.
    """
    lease, spec = held.lease, held.lease.spec
    standalone = spec.kind == "evaluate"
    limits = spec.reading_limits
    return _write_json(
        folder / "evaluate.json",
        {
            "job_id": lease.job_id,
            "task": spec.task,
            "signature": (lease.dataset or {}).get("signature") if standalone else None,
            "multi_label": spec.multi_label,
            "split": split,
            "batch_tokens": limits.batch_tokens,
            "max_tokens": limits.max_tokens,
            "models": [{"name": name, "folder": str(path)} for name, path in models.items()],
        },
    )


def code_version() -> str:
    """The version of this code, for lineages."""
    return f"nightshift {distribution.version() or 'not installed'}"


def _download_data(folder: Path, held: HeldRank, *, context: Context) -> None:
    with context.sessions.begin() as session:
        shards = chunks.shards(session, held.lease.job_id)
    counts: dict[str, int] = {}
    for shard in shards:
        held.check()
        index = counts.get(shard.split, 0)
        counts[shard.split] = index + 1
        path = f"{shard.split}/{index:06d}.parquet"
        file = {"path": path, "key": shard.object_key, "sha256": shard.sha256}
        bundles.download(context.store, [file], folder / "data", beat=held.beat)


@contextmanager
def with_base(folder: Path, held: HeldRank, *, context: Context) -> Iterator[None]:
    """Link the job's base model, or the evaluated model, as ``base`` while the block runs."""
    lease = held.lease
    reference = lease.model_pinned or reference_of(lease.spec)
    if reference is None:
        yield
        return
    models = context.artefacts
    with models.using(reference, project_id=lease.project_id, beat=held.check) as model_folder:
        (folder / "base").symlink_to(model_folder, target_is_directory=True)
        yield


def reference_of(spec: kinds.AnyTraining) -> str | None:
    """The spec's base model, or the model that it evaluates; ``None``: from scratch."""
    return spec.starts_from and spec.starts_from[1]


def _download_checkpoints(folder: Path, held: HeldRank, *, context: Context) -> None:
    lease = held.lease
    assert lease.checkpoint_id is not None
    with context.sessions.begin() as session:
        newest = checkpoints.get(session, lease.checkpoint_id)
        best = newest and checkpoints.best(session, lease.job_id, up_to_step=newest.step)
    if newest is None:
        raise CheckpointDamaged("the checkpoint to resume from was found damaged by another rank")
    _download_checkpoint(folder / "resume", newest, held, context=context)
    if best is not None and best.id != newest.id:
        _download_checkpoint(folder / "best", best, held, context=context)


def _download_checkpoint(
    target: Path, checkpoint: Checkpoint, held: HeldRank, *, context: Context
) -> None:
    try:
        files = _manifest(checkpoint, context=context)["files"]
        bundles.download(context.store, files, target, beat=held.beat)
    except (FileNotFoundError, Damaged, ValueError, KeyError, TypeError) as damage:
        reason = f"the checkpoint of step {checkpoint.step} is damaged: {damage}"
        with context.sessions.begin() as session:
            ledger.mark_damaged(session, held.lease, checkpoint.id, reason=reason)
        raise CheckpointDamaged(reason) from damage


def _manifest(checkpoint: Checkpoint, *, context: Context) -> dict[str, Any]:
    data = context.store.get(checkpoint.manifest_key)
    if hashlib.sha256(data).hexdigest() != checkpoint.manifest_sha256:
        raise ValueError("its manifest has changed")
    manifest: dict[str, Any] = json.loads(data)
    return manifest


def _write_json(path: Path, value: dict[str, Any]) -> Path:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
    return path
