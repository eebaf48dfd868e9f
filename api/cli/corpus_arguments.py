"""Corpora and models as they are named on the command line, and a spec made of them."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import progress_bars
from api.cli.failures import Failure
from api.client import Client
from jobs import kinds
from jobs.decisions import accelerate_entries
from jobs.errors import ModelFailure
from jobs.kinds import AnySpec
from jobs.models import references

Argument = Annotated[
    str,
    typer.Argument(
        help="A local file, an uploaded file's id, a URI (s3://, hf://) or pattern of URIs, "
        "tag:NAME, or sql:SOURCE."
    ),
]

FILE_ID = re.compile(r"file-[0-9a-f]{24}")
LOOKED_AT = 1_000
"""Uploaded files among which an earlier upload is looked for, the newest first."""

TAG = "tag:"
"""Before the tag of a corpus that is every file with it."""

SQL = "sql:"
"""Before the name of a SQL source."""

TO_BE_UPLOADED = "file-to-be-uploaded"
"""Stands in a spec for a local file until everything else is known to be right."""


def source(corpus: str) -> dict[str, Any]:
    """Where the rows are: a local file, an uploaded one, a URI, a tag, or a SQL source.

    Raises ``Failure``.
    """
    path = Path(corpus)
    if not corpus.strip():
        raise Failure("CORPUS is empty: name a local file, a file id, or a URI")
    if path.is_file():
        return {"file": TO_BE_UPLOADED}
    if path.is_dir():
        raise Failure(f"a corpus must be one file, and {corpus} is a folder")
    if "://" in corpus:
        return {"uri": corpus}
    if corpus.startswith(TAG):
        return {"tag": corpus.removeprefix(TAG)}
    if corpus.startswith(SQL):
        return {"sql": {"source": corpus.removeprefix(SQL)}}
    if FILE_ID.fullmatch(corpus):
        return {"file": corpus}
    raise Failure(
        f"there is no file {corpus}; a corpus is a local file, a file id, a URI, tag:NAME, or "
        "sql:SOURCE"
    )


def read_as(corpus: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A corpus with its options, of which `--and` names further files. Raises ``Failure``."""
    first, others = source(corpus), options.get("sources", [])
    if "sql" in options:
        if "sql" not in first:
            raise Failure("--sql-since and --sql-until are for a corpus sql:SOURCE")
        options = {**options, "sql": {**options["sql"], **first["sql"]}}
    if not others:
        return {**first, **options}
    for each in others:
        if "://" not in each and not FILE_ID.fullmatch(each):
            raise Failure(f"--and must be the id of an uploaded file or a URI, not {each}")
    if "tag" in first or "sql" in first:
        raise Failure("--and is for files and URIs: a tag or a SQL source stands alone")
    return {**options, "sources": [*first.values(), *others]}


def upload(
    client: Client, named: Iterable[tuple[dict[str, Any] | None, str | None]], *, reuse: bool
) -> None:
    """Upload the local files among these corpora, each once, and put their ids in their places.

    ``reuse``: one of the newest files with the same name and bytes stands in for an upload, so that
    a spec that is submitted twice names the same file.
    """
    ids: dict[str, str] = {}
    for corpus, name in named:
        if corpus is None or name is None or not _is_local(corpus):
            continue
        if name not in ids:
            earlier = _earlier(client, Path(name)) if reuse else None
            ids[name] = earlier or _upload(client, Path(name))
        if corpus.get("file") is not None:
            corpus["file"] = ids[name]
        else:
            corpus["sources"] = [ids[name], *corpus["sources"][1:]]


def _is_local(corpus: Mapping[str, Any]) -> bool:
    return TO_BE_UPLOADED in (corpus.get("file"), *corpus.get("sources", ()))


def _upload(client: Client, path: Path) -> str:
    with progress_bars.transfer("uploading", path) as progress:
        return str(client.upload(path, progress=progress)["id"])


def _earlier(client: Client, path: Path) -> str | None:
    """The newest uploaded file with this name and these bytes, if it is among the newest."""
    with path.open("rb") as local:
        sha256 = hashlib.file_digest(local, "sha256").hexdigest()
    for file in itertools.islice(client.files(), LOOKED_AT):
        if (file["filename"], file["nightshift"]["sha256"]) == (path.name, sha256):
            return str(file["id"])
    return None


def model(reference: str) -> str:
    """A local folder as workers on the same machine find it; anything else as it is."""
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return str(folder.absolute())
    try:
        references.parse(reference)
    except ModelFailure as failure:
        raise Failure(f"there is no model folder {reference}; {failure.message}") from failure
    return reference


def checked(fields: dict[str, Any], corpora: Mapping[tuple[str, ...], str]) -> AnySpec:
    """The spec, refused here and now for what the API, a planner or a worker would refuse.

    ``corpora``: as the command line names them, by the path of their field. Raises pydantic's
    ``ValidationError``, ``BadSpec``, ``CorpusFailure``, ``ModelFailure``.
    """
    from api.cli import local_checks  # noqa: PLC0415 - Arrow takes a while to load

    spec = kinds.parse(fields)
    accelerate_entries.check(spec.accelerate)
    named = dict(spec.corpora())
    for path, name in corpora.items():
        corpus = named[".".join(path)]
        if TO_BE_UPLOADED in corpus.files:
            local_checks.corpus(Path(name), corpus, spec)
    local_checks.model(spec)
    return spec
