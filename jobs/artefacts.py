"""From any model reference to a local folder with its files.

``jobs.models.folders`` locates hub models and local folders. Versions of the registry and folders
of an object store are fetched into the machine's cache and stay there while they are used. An
adapter's folder has a link ``base`` to the folder of the model that it adapts, recursively.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from jobs import database, objects, private_places
from jobs.database import Sessions
from jobs.errors import Damaged, ModelFailure, NotFound
from jobs.lookups import registry
from jobs.models import bundles, folders, inspection, references
from jobs.models.cache import ArtefactCache
from jobs.models.references import Location, Registered, RegisteredBy
from jobs.objects import ObjectStore, Stored
from jobs.progress import Beat, no_beat
from jobs.settings import Settings
from jobs.tables import ModelVersion

LOOKUP_SECONDS = 10.0
"""How long a lookup in the registry waits for Postgres."""

BASE = "base"
"""The link in an adapter's folder."""


class Artefacts:
    """The models of one installation as folders on this machine; thread-safe."""

    def __init__(
        self, sessions: Sessions, store: ObjectStore, *, cache: ArtefactCache, settings: Settings
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._cache = cache
        self._limit = settings.artefact_cache_bytes
        self._allowed = settings.allowed_models
        self._private = private_places.of(settings)

    @contextmanager
    def using(self, reference: str, *, project_id: str, beat: Beat = no_beat) -> Iterator[Path]:
        """The reference's folder, kept for as long as the block runs.

        ``beat`` is called while bytes arrive; an exception from it ends the fetching. Raises
        ``ModelFailure``, and ``OSError`` for faults that may pass.
        """
        match references.check_allowed(reference, self._allowed):
            case Registered() as name:
                version = self._version(name, project_id=project_id)
                with self._registered(version, beat=beat) as folder:
                    yield folder
            case RegisteredBy(job=job):
                raise ModelFailure(f"{job} has registered no model yet", code="model_missing")
            case Location(scheme=scheme, parts=parts) as location:
                if private_places.hold_object(self._private, scheme, parts):
                    raise references.private(reference)
                with self._objects(location, beat=beat) as folder:
                    yield folder
            case _:
                yield folders.locate(reference, allowed=self._allowed, private=self._private)

    def _version(self, name: Registered, *, project_id: str) -> ModelVersion:
        try:
            return database.patiently(
                self._sessions,
                lambda session: registry.version(session, name, project_id=project_id),
                seconds=LOOKUP_SECONDS,
            )
        except NotFound as error:
            raise ModelFailure(error.message, code="model_missing") from error

    @contextmanager
    def _registered(self, version: ModelVersion, *, beat: Beat) -> Iterator[Path]:
        with ExitStack() as stack:
            base = None
            if version.kind == "adapter":
                assert version.base is not None, "an adapter is registered with its base"
                base_folder = self.using(version.base, project_id=version.project_id, beat=beat)
                base = stack.enter_context(base_folder)
                _check_base(version, base)
            yield stack.enter_context(self._cached(version, base=base, beat=beat))

    def _cached(self, version: ModelVersion, *, base: Path | None, beat: Beat) -> _FolderContext:
        def fill(folder: Path) -> None:
            try:
                bundles.download(self._store, version.files, folder, beat=beat)
            except Damaged as error:
                raise ModelFailure(
                    f"{version.name}@{version.version}: {error.message}", code="model_damaged"
                ) from error
            if base is not None:
                (folder / BASE).symlink_to(base)

        key = version.sha256 if base is None else _key(version.sha256, str(base))
        return self._using(key, size=version.bytes, fill=fill, beat=beat)

    def _objects(self, location: Location, *, beat: Beat) -> _FolderContext:
        store = objects.connect(location.uri)
        listing = _listing(store, location)

        def fill(folder: Path) -> None:
            for entry in listing:
                _fetch(store, entry.key, folder, beat=beat)
            if _listing(store, location) != listing:
                raise ModelFailure(
                    f"{location.uri} changed while it was fetched", code="model_changed"
                )

        entries = (f"{entry.key}:{entry.bytes}:{entry.etag}" for entry in listing)
        size = sum(entry.bytes for entry in listing)
        return self._using(_key(location.uri, *entries), size=size, fill=fill, beat=beat)

    def _using(
        self, key: str, *, size: int, fill: Callable[[Path], None], beat: Beat
    ) -> _FolderContext:
        if size > self._limit:
            raise ModelFailure(
                f"the model has {size} bytes, and this machine keeps at most {self._limit} "
                "(artefact_cache_bytes)",
                code="model_too_large",
            )
        return self._cache.using(key, size=size, fill=fill, beat=beat)


_FolderContext = AbstractContextManager[Path]


def open(sessions: Sessions, store: ObjectStore, settings: Settings) -> Artefacts:  # noqa: A001
    """The models of this installation, with the cache of its settings."""
    cache = ArtefactCache(settings.artefact_folder, limit=settings.artefact_cache_bytes)
    return Artefacts(sessions, store, cache=cache, settings=settings)


def _key(*identity: str) -> str:
    return hashlib.sha256("\0".join(identity).encode()).hexdigest()


def _listing(store: ObjectStore, location: Location) -> list[Stored]:
    listing = sorted(store.listing(), key=lambda entry: entry.key)
    if not listing:
        raise ModelFailure(f"there are no objects under {location.uri}", code="model_missing")
    return listing


def _fetch(store: ObjectStore, key: str, folder: Path, *, beat: Beat) -> None:
    target = folder / bundles.inner(key)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as sink:
        for block in store.stream(key):
            sink.write(block)
            beat()
        sink.flush()
        os.fsync(sink.fileno())


def _check_base(version: ModelVersion, base: Path) -> None:
    """An adapter on a base other than its own would give wrong results without an error."""
    expected = (version.lineage.get("base") or {}).get("digest")
    if expected is not None and inspection.inspect(base).digest != expected:
        raise ModelFailure(
            f"{version.name}@{version.version} is an adapter on {version.base}, which has changed: "
            f"its digest must be {expected}",
            code="model_changed",
        )
