"""The label set of a fine-tune: a list in its spec, or the labels of a version of the registry."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy.orm import Session

from jobs.errors import ModelFailure, NotFound
from jobs.kinds import AnyTraining, FinetuneSpec, label_sets
from jobs.lookups import registry


@dataclass(frozen=True)
class FixedLabels:
    """The labels that the model knows, whatever rows there are."""

    labels: tuple[str, ...]
    source: str  # in words, for messages
    version: str | None  # of the registry, pinned; None: a list
    grows: bool  # whether the labels of training rows are added

    def with_those_of(self, rows: Iterable[str]) -> tuple[str, ...]:
        """The set, with new labels behind it, so that ids of labels stay as they are."""
        return tuple(dict.fromkeys([*self.labels, *rows])) if self.grows else self.labels


def read(session: Session, spec: AnyTraining, *, project_id: str) -> FixedLabels | None:
    """The label set of the job; ``None``: its labels are those of its training rows.

    So it is as well where the alias of the model that is trained points nowhere yet: its first
    version has no other. Raises ``ModelFailure`` for another version that there is not.
    """
    if not isinstance(spec, FinetuneSpec) or spec.labels is None:
        return None
    grows = spec.new_labels == "add"
    if not isinstance(spec.labels, str):
        return FixedLabels(spec.labels, "the label set of the job", None, grows)
    name = label_sets.version(spec.labels)
    try:
        found = registry.version(session, name, project_id=project_id)
    except NotFound as error:
        if name.name == spec.model and name.alias is not None:
            return None
        raise ModelFailure(f"labels: {error.message}", code=error.code) from error
    reference = f"{found.name}@{found.version}"
    labels = tuple((found.signature or {}).get("labels") or ())
    if not labels:
        raise ModelFailure(
            f"labels: {reference} has no labels in the registry: give them as a list",
            code="no_label_set",
        )
    return FixedLabels(labels, f"the label set of {reference}", reference, grows)
