"""What an object is by its key; what has no key of ours is none of the collector's business."""

from __future__ import annotations

import pytest

from jobs.decisions import stored_objects
from jobs.decisions.stored_objects import ObjectKind
from jobs.kinds import DatasetSplit, datasets
from jobs.models import bundles
from jobs.results import parts, reports

JOB = "job_0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (parts.shard_key(JOB, index=3, fence=1), ObjectKind.SHARDS),
        (datasets.shard_key(JOB, DatasetSplit.TRAIN, index=0, fence=2), ObjectKind.SHARDS),
        (parts.extract_key(JOB, "corpus", fence=2), ObjectKind.SHARDS),
        (parts.part_key(JOB, first_row=5, chunk_id=7, fence=1), ObjectKind.PARTS),
        (parts.output_key(JOB, name="results", fence=1, suffix="csv"), ObjectKind.OUTPUTS),
        (f"jobs/{JOB}/checkpoints/000000010-2/rank-0/model.safetensors", ObjectKind.CHECKPOINTS),
        (f"jobs/{JOB}/checkpoints/000000010-2/manifest.json", ObjectKind.CHECKPOINTS),
        (reports.report_key("p-1", job_id=JOB, fence=3), ObjectKind.REPORTS),
        (bundles.folder("p-1", "news-2.b", job_id=JOB, fence=1) + "/a/b.bin", ObjectKind.MODELS),
    ],
)
def test_every_key_that_is_written_is_known_with_its_job(key: str, kind: ObjectKind) -> None:
    found = stored_objects.read(key)
    assert found is not None
    assert (found.kind, found.job_id) == (kind, JOB)


def test_an_uploaded_file_has_no_job() -> None:
    found = stored_objects.read("files/file-0")
    assert found is not None
    assert (found.kind, found.job_id, found.named_by) == (ObjectKind.FILES, None, "files/file-0")


@pytest.mark.parametrize("name", ["rank-0/model.safetensors", "rank-1/a/b", "manifest.json"])
def test_a_file_of_a_checkpoint_is_named_by_its_manifest(name: str) -> None:
    found = stored_objects.read(f"jobs/{JOB}/checkpoints/000000010-2/{name}")
    assert found is not None
    assert found.named_by == f"jobs/{JOB}/checkpoints/000000010-2/manifest.json"


@pytest.mark.parametrize(
    "key",
    [
        "backup.tar",
        "files/file-0/more",
        "files",
        f"jobs/{JOB}",
        f"jobs/{JOB}/notes.txt",
        f"jobs/{JOB}/something/else.bin",
        f"reports/p/{JOB}.json",
        "models/p/news/3/model.safetensors",
        "models/p/news/config.json",
        "other/jobs/job_0/parts/1.parquet",
    ],
)
def test_any_other_key_is_not_ours(key: str) -> None:
    assert stored_objects.read(key) is None
