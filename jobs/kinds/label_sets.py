"""``labels`` of a fine-tune: the labels that its model knows, whatever rows there are tonight."""

from __future__ import annotations

from jobs.models import references
from jobs.models.references import Registered

LabelSet = tuple[str, ...] | str
"""A list of labels, or the version of the registry that has them."""

MOST_LABELS = 10_000
LONGEST_LABEL = 1_000

_SHOWN_CHARACTERS = 60


def check(value: LabelSet) -> None:
    """Raise ``ValueError`` for what can be neither the labels of a model nor a version."""
    if isinstance(value, str):
        version(value)
        return
    if len(value) > MOST_LABELS:
        raise ValueError(f"labels must be at most {MOST_LABELS:,}, not {len(value):,}")
    if not all(value) or max(map(len, value), default=0) > LONGEST_LABEL:
        raise ValueError(f"a label must be a text of 1 to {LONGEST_LABEL:,} characters")
    if len(set(value)) < len(value):
        twice = next(label for label in value if value.count(label) > 1)
        raise ValueError(f"labels must differ, and {twice[:_SHOWN_CHARACTERS]!r} is there twice")


def version(text: str) -> Registered:
    """The version of the registry whose labels are meant. Raises ``ValueError``."""
    found = references.REGISTERED.fullmatch(text)
    if found is None or not (found["version"] or found["alias"]):
        raise ValueError(
            "labels must be a list, or a version of the registry such as news@champion, not "
            f"{text[:_SHOWN_CHARACTERS]!r}"
        )
    number = found["version"]
    return Registered(found["name"], int(number) if number else None, found["alias"])
