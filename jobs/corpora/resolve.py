"""From what is written down of a job's corpus to the bytes of its objects."""

from __future__ import annotations

from jobs import private_places
from jobs.corpora import sources
from jobs.corpora.sources import Source
from jobs.errors import CorpusFailure
from jobs.inputs import Input
from jobs.objects import ObjectStore
from jobs.settings import Settings


def opened(each: Input, store: ObjectStore, *, settings: Settings) -> Source:
    """An object that was written down with a job. Raises ``CorpusRefused``, ``CorpusFailure``."""
    if each.object_key is not None:
        name = each.filename if each.query is None else f"{each.name}.jsonl"
        return sources.from_object(store, each.object_key, name=name or each.name)
    return _at(each.name, settings=settings)


def at_uri(uri: str, *, settings: Settings) -> Input:
    """The object at a URI as it is now; it is looked at, not read.

    Raises ``CorpusRefused``, ``CorpusFailure``.
    """
    version = _at(uri, settings=settings).fingerprint()
    size = version.partition(":")[0]  # every version begins with it
    if not size.isdecimal():
        raise CorpusFailure(f"{uri} cannot be read: its size is not known")
    return Input(sources.canonical(uri), version, int(size))


def _at(uri: str, *, settings: Settings) -> Source:
    return sources.from_uri(
        uri, allowed=settings.allowed_inputs, private=private_places.of(settings)
    )
