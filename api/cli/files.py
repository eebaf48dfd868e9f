"""``nightshift files``: upload, list, download."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import arguments, connection, console, out_files, progress_bars, tables
from api.cli.arguments import FileId, Force, Json, Limit, Out
from api.cli.failures import Failure
from api.cli.tables import WHOLE, Column, Listing

app = typer.Typer(help="Uploaded files.")

COLUMNS = (
    Column("FILE"),
    Column("SIZE", cut=2),
    Column("UPLOADED", cut=3, least=WHOLE),
    Column("NAME", cut=1),
)


@app.command("upload")
def upload(
    path: Path,
    *,
    tag: Annotated[
        str | None,
        typer.Option(help="A corpus may be every file with this tag.", parser=arguments.tag),
    ] = None,
    json: Json = False,
    api: connection.Api = None,
) -> None:
    """Store a local file; prints its id."""
    if not path.is_file():
        raise Failure(f"there is no file {path}")
    if not path.stat().st_size:
        raise Failure(f"{path} is empty")
    with connection.connect(api) as client, progress_bars.transfer("uploading", path) as progress:
        file = client.upload(path, progress=progress, tag=tag)
    console.answer(file, file["id"], json=json)


@app.command("list")
def list_files(
    *,
    tag: Annotated[
        str | None, typer.Option(help="Only files with this tag.", parser=arguments.tag)
    ] = None,
    limit: Limit = 50,
    json: Json = False,
    api: connection.Api = None,
) -> None:
    """Files, newest first."""
    with connection.connect(api) as client:
        found = Listing.first(client.files(tag=tag), limit)
    tables.listing(found, COLUMNS, _row, json=json)


@app.command("delete")
def delete(file_id: FileId, *, json: Json = False, api: connection.Api = None) -> None:
    """Delete a file that no job under way and no schedule needs."""
    with connection.connect(api) as client:
        done = client.delete_file(file_id)
    console.answer(done, f"{file_id} is deleted", json=json)


@app.command("download")
def download(
    file_id: FileId,
    *,
    out: Out,
    force: Force = False,
    api: connection.Api = None,
) -> None:
    """Fetch an uploaded file's bytes."""
    out_files.check(out, force=force)
    with connection.connect(api) as client, progress_bars.transfer("fetching", out) as progress:
        client.download_file(file_id, out, progress=progress)


def _row(file: dict[str, Any]) -> tuple[Any, ...]:
    uploaded = datetime.fromtimestamp(file["created_at"], UTC).isoformat()
    return file["id"], console.size(file["bytes"]), console.moment(uploaded), file["filename"]
