"""``nightshift files``: upload, list, download."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer

from api.cli import connection, printing, watching
from api.cli.failures import Failure

app = typer.Typer(help="Uploaded files.")

FileId = Annotated[str, typer.Argument(metavar="FILE", help="A file's id, `file-...`.")]
Limit = Annotated[int, typer.Option(min=1, help="Most entries.")]


@app.command("upload")
def upload(path: Path, *, json: connection.Json = False, api: connection.Api = None) -> None:
    """Store a local file; prints its id."""
    if not path.is_file():
        raise Failure(f"there is no file {path}")
    with connection.connect(api) as client, watching.transfer("uploading", path) as progress:
        file = client.upload(path, progress=progress)
    if json:
        printing.as_json(file)
    else:
        printing.line(file["id"])


@app.command("list")
def list_files(
    *, limit: Limit = 50, json: connection.Json = False, api: connection.Api = None
) -> None:
    """Files, newest first."""
    with connection.connect(api) as client:
        files = list(itertools.islice(client.files(), limit))
    if json:
        printing.as_json(files)
    else:
        printing.table(
            ("FILE", "SIZE", "NAME"),
            [(file["id"], printing.size(file["bytes"]), file["filename"]) for file in files],
        )


@app.command("download")
def download(
    file_id: FileId,
    *,
    out: Annotated[Path, typer.Option(help="Where to write it.")],
    api: connection.Api = None,
) -> None:
    """Fetch an uploaded file's bytes."""
    with connection.connect(api) as client, watching.transfer("fetching", out) as progress:
        client.download_file(file_id, out, progress=progress)
