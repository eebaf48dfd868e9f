"""``nightshift files``: upload, list, download."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer

from api.cli import connection, console, progress_bars
from api.cli.failures import Failure

app = typer.Typer(help="Uploaded files.")

FileId = Annotated[str, typer.Argument(metavar="FILE", help="A file's id, `file-...`.")]
Limit = Annotated[int, typer.Option(min=1, help="Most entries.")]


@app.command("upload")
def upload(path: Path, *, json: connection.Json = False, api: connection.Api = None) -> None:
    """Store a local file; prints its id."""
    if not path.is_file():
        raise Failure(f"there is no file {path}")
    with connection.connect(api) as client, progress_bars.transfer("uploading", path) as progress:
        file = client.upload(path, progress=progress)
    if json:
        console.as_json(file)
    else:
        console.line(file["id"])


@app.command("list")
def list_files(
    *, limit: Limit = 50, json: connection.Json = False, api: connection.Api = None
) -> None:
    """Files, newest first."""
    with connection.connect(api) as client:
        files = list(itertools.islice(client.files(), limit))
    if json:
        console.as_json(files)
    else:
        console.table(
            ("FILE", "SIZE", "NAME"),
            [(file["id"], console.size(file["bytes"]), file["filename"]) for file in files],
        )


@app.command("download")
def download(
    file_id: FileId,
    *,
    out: Annotated[Path, typer.Option(help="Where to write it.")],
    api: connection.Api = None,
) -> None:
    """Fetch an uploaded file's bytes."""
    with connection.connect(api) as client, progress_bars.transfer("fetching", out) as progress:
        client.download_file(file_id, out, progress=progress)
