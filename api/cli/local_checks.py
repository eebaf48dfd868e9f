"""What can be found wrong with local files before they are uploaded, by the checks of the planner.

The first rows of a corpus are read as the planner will read them; a model's folder is inspected as
a worker will inspect it. What only the server knows is left to it.
"""

from __future__ import annotations

from pathlib import Path

from jobs.corpora import readers, sources
from jobs.corpora import targets as target_values
from jobs.corpora.targets import TargetKind
from jobs.errors import ModelFailure
from jobs.kinds import AnySpec, BulkSpec, Corpus, EvaluateSpec, FinetuneSpec, signature_defaults
from jobs.models import inspection
from jobs.settings import Settings


def corpus(path: Path, corpus: Corpus, spec: AnySpec) -> None:
    """Read the first rows. Raises ``CorpusFailure``: empty, no such column, an unknown format."""
    limit = Settings.model_fields["max_row_bytes"].default
    rows = readers.read(
        sources.from_path(path), corpus, max_row_bytes=limit, targets=_targets(spec)
    )
    next(rows)


def model(spec: AnySpec) -> None:
    """Inspect the folder of the model, if it is one here. Raises ``ModelFailure``."""
    reference = spec.starts_from and spec.starts_from[1]
    folder = Path(reference or "")
    if not folder.is_absolute() or not folder.is_dir():
        return
    facts = inspection.look(folder)
    if isinstance(spec, BulkSpec):
        signature_defaults.with_defaults(spec.options, facts.signature).check(facts)
    elif not facts.has_tokenizer:
        raise ModelFailure(f"the model in {folder} has no tokenizer: it does not read texts")


def _targets(spec: AnySpec) -> TargetKind | None:
    """What the rows have beside a text; of an evaluation without a task the model decides."""
    if isinstance(spec, FinetuneSpec):
        return target_values.target_kind(spec.task, multi_label=spec.multi_label)
    if isinstance(spec, EvaluateSpec) and spec.task is not None:
        return target_values.target_kind(spec.task, multi_label=bool(spec.multi_label))
    return None
