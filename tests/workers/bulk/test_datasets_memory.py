"""Memory of planning is bounded by a shard, however large a labelled corpus is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs.corpora.test_memory import READ

pytestmark = pytest.mark.alone

PLAN = """
from types import SimpleNamespace
from jobs import objects
from jobs.corpora import resolve
from jobs.corpora.targets import TargetKind
from jobs.inputs import Input
from jobs.kinds import DatasetSplit
from jobs.ledger.step_leases import Plan, StepLease
from jobs.settings import Settings
from jobs.kinds import LabelledCorpus
from jobs.states import JobState
from workers.context import Context
from workers.bulk.shard_writer import ShardWriter
from workers.bulk.label_counts import LabelCounts

def plan(name, open_, targets):
    source = sources.Source(name=name, fingerprint=lambda: "", open=open_)
    context = Context(Settings(), None, objects.connect(sys.argv[1]))
    plan = Plan(None, None, None, None)
    lease = StepLease("job", 1, JobState.PLANNING, "finetune", "project", {}, None, plan)
    writer = ShardWriter(lease, renewer=SimpleNamespace(beat=lambda: None), context=context)
    before = peak()
    counts = LabelCounts(DatasetSplit.TRAIN, targets=targets, known=None)
    corpus = LabelledCorpus(file="f")
    resolve.opened = lambda *_, **__: source
    found = (Input(name="f", version="", bytes=1, filename=name),)
    facts = writer.write(DatasetSplit.TRAIN, corpus, found, counts=counts, targets=targets)
    print(facts.rows, facts.rejected, round(peak() - before))
"""

CASES = {
    "150 MB of labelled JSONL": (
        """row = b'{"text": "' + b"x" * 997 + b'", "label": "a"}\\n'
plan("a.jsonl", lambda: io.BufferedReader(Endless(b"", row, 150_000, b"")), TargetKind.LABEL)""",
        (150_000, 0),
    ),
    "150 MB of summaries in CSV": (
        """plan("a.csv", lambda: io.BufferedReader(
            Endless(b"text,summary\\n", b"x," + b"y" * 1021 + b"\\n", 150_000, b",\\n")),
            TargetKind.TEXT)""",
        (150_000, 1),
    ),
    "rejected rows without end": (
        """plan("a.csv", lambda: io.BufferedReader(
            Endless(b"text,label\\na,b\\n", b"x" * 62 + b",\\n", 200_000, b"a,b\\n")),
            TargetKind.LABEL)""",
        (2, 200_000),
    ),
    "one long text 1,000 times in Parquet": (
        """file = io.BytesIO()
long = pa.array(["x" * 300_000] * 1000).dictionary_encode()
long = long.cast(pa.dictionary(pa.int32(), pa.string()))
pq.write_table(pa.table({"text": long, "summary": long}), file)
plan("a.parquet", lambda: io.BytesIO(file.getvalue()), TargetKind.TEXT)""",
        (1_000, 0),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_memory_is_bounded(case: str, tmp_path: Path) -> None:
    code, expected = CASES[case]
    ran = subprocess.run(
        [sys.executable, "-c", READ + PLAN + code, tmp_path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    rows, rejected, grown = map(int, ran.stdout.split())
    assert (rows, rejected) == expected
    assert grown < 120, f"{case}: {grown} MiB"
