"""Files and folders that a command writes: checked before anything is uploaded or fetched."""

from __future__ import annotations

import os
from pathlib import Path

from api.cli.failures import Failure
from jobs.formats import OUTPUT_ENDINGS, OutputFormat


def check(out: Path, *, force: bool) -> None:
    """Raise ``Failure`` unless this file can be written, and nothing is lost by it."""
    _check_place(out)
    if out.is_dir():
        raise Failure(f"--out must name a file, and {out} is a folder")
    if out.exists() and not force:
        raise Failure(f"--out {out} exists: name another file, or write over it with --force")


def check_folder(out: Path, *, force: bool) -> None:
    """The same of a folder; with ``force`` files are added to one that exists."""
    _check_place(out)
    if out.exists() and not out.is_dir():
        raise Failure(f"--out must name a folder, and {out} is a file")
    if out.exists() and not force:
        raise Failure(
            f"--out must name a folder that does not exist yet, and {out} does: name another, or "
            "write into it with --force"
        )


def result_format(out: Path) -> OutputFormat:
    """The format of results by the ending of the name. Raises ``Failure``."""
    if out.suffix not in OUTPUT_ENDINGS:
        raise Failure(f"--out must end in {', '.join(OUTPUT_ENDINGS)}, and {out.name!r} does not")
    return OUTPUT_ENDINGS[out.suffix]


def _check_place(out: Path) -> None:
    folder = out.absolute().parent
    if not out.name:
        raise Failure(f"--out must name a file, not {str(out)!r}")
    if not folder.is_dir():
        raise Failure(f"the folder of --out, {folder}, must exist: make it, or name another")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Failure(f"this user may not write into the folder of --out, {folder}: name another")
