"""The validation share of a job's training rows, written as a split for the evaluation program.

``workers.training.tokenized_dataset`` draws the same rows: the draw is a function of the counts,
the share and the seed (``jobs.decisions.validation_split``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.corpora.schemas import TRAINING_SCHEMA
from jobs.decisions import validation_split
from jobs.decisions.validation_split import Selector
from jobs.kinds import FinetuneSpec, Task

NAME = "validation-share"
BATCH_ROWS = 2_000


def write(data: Path, *, spec: FinetuneSpec, facts: dict[str, Any]) -> str:
    """Write the rows below ``data``, with one batch in memory; returns the split's name."""
    stratified = spec.task is Task.CLASSIFY and not spec.multi_label
    counts = facts["labels"] if stratified else {validation_split.ONLY_STRATUM: facts["rows"]}
    selector = Selector(counts, share=spec.validation_share, seed=spec.train.seed)
    folder = data / NAME
    folder.mkdir(exist_ok=True)
    with pq.ParquetWriter(folder / "000000.parquet", TRAINING_SCHEMA) as writer:
        for shard in sorted((data / "train").glob("*.parquet")):
            with pq.ParquetFile(shard) as file:
                for batch in file.iter_batches(batch_size=BATCH_ROWS):
                    targets = batch["target"].to_pylist()
                    strata = [
                        str(target) if stratified else validation_split.ONLY_STRATUM
                        for target in targets
                    ]
                    selected = pa.array([selector.take(stratum) for stratum in strata])
                    writer.write_table(pa.Table.from_batches([batch]).filter(selected))
    return NAME
