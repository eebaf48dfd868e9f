"""``nightshift demo``: the shortest honest path through the product, by public commands alone."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import console, docstring_corpus, sample_model, tables, up
from api.cli.failures import NOT_PROMOTED, Failure

MODEL_NAME = "topics"
SHOWN = 6


def demo(
    *,
    home: up.Home = Path(".nightshift"),
    rows: Annotated[
        int, typer.Option(min=0, help="How many documentation strings; 0 for all of them.")
    ] = 1200,
    labelled_rows: Annotated[
        int, typer.Option(min=80, help="How many others, with labels, the fine-tune gets.")
    ] = 480,
    keep_running: Annotated[
        bool, typer.Option("--keep-running", help="Leave the stack up at the end.")
    ] = False,
) -> None:
    """Classify the documentation of the installed packages, fine-tune, and classify it again."""
    folder = (home or Path(".nightshift")).expanduser().absolute()
    model = sample_model.folder()
    with _stack(folder, allow=model, keep_running=keep_running):
        files = _Files(folder / "demo")
        count = docstring_corpus.write(files.corpus, rows=rows or None)
        behind = count if rows else 0  # all strings in the corpus: the labelled ones are among them
        labelled = docstring_corpus.write_labelled(
            files.labelled, rows=labelled_rows, behind=behind
        )
        console.line(f"\n{count:,} documentation strings: {files.corpus}")
        labels = ",".join(docstring_corpus.TOPICS)
        untrained = ("--model", str(model), "--labels", labels, "--max-tokens", "64")
        _classify(files.corpus, files.before, *untrained, home=folder)
        _show_some(files.before)
        _finetune(files.labelled, labelled, base=model, home=folder)
        trained = ("--model", f"{MODEL_NAME}@{_newest_version(folder)}")
        _classify(files.corpus, files.after, *trained, home=folder)
        _compare(files)
    console.line(f"\nresults: {files.before} and {files.after}")
    console.line(f"look around: nightshift up --home {folder}")


class _Files:
    """Where the demo's files lie."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)  # an earlier version may have made it
        self.corpus = folder / "corpus.jsonl"
        self.labelled = folder / "labelled.jsonl"
        self.before = folder / "before.jsonl"
        self.after = folder / "after.jsonl"


@contextmanager
def _stack(home: Path, *, allow: Path, keep_running: bool) -> Iterator[None]:
    """The stack of this folder; one that ran before goes on running afterwards."""
    stack = up.stack()
    ran_before = stack.info(home) is not None
    found = stack.background(home, allow=[allow])
    if ran_before and not any(allow.resolve().is_relative_to(each) for each in found.allowed):
        raise Failure(
            f"the stack that runs on {home} does not allow the demo's model: stop it with "
            f"`nightshift down --home {home}`, or start it with --allow {allow}"
        )
    console.line(f"the stack runs: API {found.api_url}")
    try:
        yield
    finally:
        if not (ran_before or keep_running):
            stack.stop(home)


def _classify(corpus: Path, results: Path, *how: str, home: Path) -> None:
    """A bulk job, which reads the beginning of each string, and the proof that none is missing."""
    options = ("--id-column", "id", "--keep-text", "--name", "demo")
    _run(
        "classify",
        str(corpus),
        *how,
        *options,
        "--out",
        str(results),
        "--force",
        "--watch",
        home=home,
    )
    listing = json.loads(_run("jobs", "list", "--limit", "1", "--json", home=home, capture=True))
    _run("jobs", "verify", str(listing[0]["id"]), home=home)


def _finetune(labelled: Path, rows: int, *, base: Path, home: Path) -> None:
    console.line(f"\n{rows:,} other strings, labelled by what their packages are about: {labelled}")
    _run(
        *("finetune", str(labelled), "--base", str(base), "--name", MODEL_NAME),
        # So few rows want small steps. The first words of a string say the most about it; of the
        # validation rows, which are fewer still, the loss says more than the F1.
        *("--epochs", "2", "--batch-rows", "16", "--learning-rate", "3e-4", "--max-tokens", "32"),
        *("--metric", "loss", "--promote", "champion", "--watch"),
        home=home,
        accepted=(0, NOT_PROMOTED),  # of an earlier demo there may be a better version
    )


def _newest_version(home: Path) -> int:
    versions = json.loads(_run("models", "versions", MODEL_NAME, "--json", home=home, capture=True))
    return max(int(each["version"]) for each in versions)


def _compare(files: _Files) -> None:
    """How often each model found the topic of a string's package, on strings of the corpus."""
    console.line("\nstrings whose package has a topic, none of which was trained on:")
    table = []
    for words, path in (("nearest label", files.before), ("fine-tuned", files.after)):
        known = [(docstring_corpus.topic(row["id"]), row["label"]) for row in _rows(path)]
        known = [(topic, label) for topic, label in known if topic is not None]
        right = sum(topic == label for topic, label in known)
        table.append((words, f"{len(known):,}", f"{right / max(len(known), 1):.1%}"))
    tables.table(("MODEL", "STRINGS", "TOPIC FOUND"), table)


def _run(
    *arguments: str, home: Path, capture: bool = False, accepted: Collection[int] = (0,)
) -> str:
    """Run one of our own commands as a user would, and show it."""
    if not capture:
        console.line(f"\n$ nightshift {shlex.join(arguments)}")
        sys.stdout.flush()
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", *arguments],
        env={**os.environ, "NIGHTSHIFT_HOME": str(home)},
        stdout=subprocess.PIPE if capture else None,
        text=True,
        check=False,
    )
    if done.returncode not in accepted:
        raise Failure(f"`nightshift {arguments[0]}` failed", code=done.returncode)
    return done.stdout or ""


def _show_some(results: Path) -> None:
    console.line("\na few rows:")
    for row in itertools.islice(_rows(results), SHOWN):
        first_line = row["text"].splitlines()[0] if row["text"] else ""
        console.line(f"  {row['label'] or row['error_code']:<30} {first_line[:70]}")


def _rows(results: Path) -> Iterator[dict[str, Any]]:
    with results.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
