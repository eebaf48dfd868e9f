"""What an object of the store is, by its key: pure.

The rule of the garbage collector: an object of an owner that the ledger knows and that is at rest
is garbage if no row names it. One that cannot be attributed is none of its business
(docs/decisions/0047).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from jobs import names


class ObjectKind(StrEnum):
    """What an object is, as usage is shown."""

    FILES = "files"
    SHARDS = "shards"
    PARTS = "parts"
    CHUNKS = "chunks"
    OUTPUTS = "outputs"
    CHECKPOINTS = "checkpoints"
    REPORTS = "reports"
    MODELS = "models"


@dataclass(frozen=True)
class StoredKey:
    """An object whose key has a form that this version writes."""

    key: str
    kind: ObjectKind
    job_id: str | None  # whose it is; null: it is an uploaded file
    named_by: str  # the key that a row must have for this one to be needed


_FOLDERS = {
    "shards": ObjectKind.SHARDS,
    "data": ObjectKind.SHARDS,
    "extracts": ObjectKind.SHARDS,  # what a query gave, before it is cut into shards
    "parts": ObjectKind.PARTS,
    "chunks": ObjectKind.CHUNKS,  # folded
    "output": ObjectKind.OUTPUTS,
    "checkpoints": ObjectKind.CHECKPOINTS,
}
_FILE = re.compile(rf"files/{names.ID}")
_OF_JOB = re.compile(rf"jobs/(?P<job>{names.ID})/(?P<folder>{'|'.join(_FOLDERS)})/(?P<name>.+)")
_PART = re.compile(r"(?P<row>\d+)-\d+-\d+\.parquet")
_CHECKPOINT = re.compile(r"\d+-\d+(?=/)")
_REPORT = re.compile(rf"reports/[^/]+/(?P<job>{names.ID})-\d+\.json")
_MODEL = re.compile(rf"models/[^/]+/{names.MODEL}/(?P<job>{names.ID})-\d+/.+")


def read(key: str) -> StoredKey | None:
    """What the object is; ``None``: nothing that this version writes."""
    if _FILE.fullmatch(key):
        return StoredKey(key, ObjectKind.FILES, None, key)
    if found := _OF_JOB.fullmatch(key):
        kind = _FOLDERS[found["folder"]]
        return StoredKey(key, kind, found["job"], _named_by(key, kind, found["name"]))
    if found := _REPORT.fullmatch(key):
        return StoredKey(key, ObjectKind.REPORTS, found["job"], key)
    if found := _MODEL.fullmatch(key):
        return StoredKey(key, ObjectKind.MODELS, found["job"], key)
    return None


def first_row(key: StoredKey) -> int | None:
    """The row at which a part begins; ``None``: it is no part."""
    found = _PART.fullmatch(key.key.rpartition("/")[2]) if key.kind is ObjectKind.PARTS else None
    return None if found is None else int(found["row"])


def _named_by(key: str, kind: ObjectKind, name: str) -> str:
    """Of a file of a checkpoint its manifest, which the row of the checkpoint names."""
    if kind is not ObjectKind.CHECKPOINTS:
        return key
    checkpoint = _CHECKPOINT.match(name)
    if checkpoint is None:
        return key
    return f"{key.removesuffix(name)}{checkpoint[0]}/manifest.json"
