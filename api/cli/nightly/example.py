"""The example from its beginning to its end: the nights, the facts, what is broken."""

from __future__ import annotations

import time
from pathlib import Path

from api.cli import console, sample_model
from api.cli.failures import Failure
from api.cli.nightly import expectations, facts, installation, receiver, report
from api.cli.nightly.arrivals import Arrivals
from api.cli.nightly.installation import Installation
from api.cli.nightly.story import Story
from jobs.errors import NightshiftError

TO_THE_END = "The nights come to their end."


def run(folder: Path, *, keep_running: bool) -> None:
    """Raises ``Failure`` unless everything held."""
    began = time.monotonic()
    base = sample_model.folder()
    with (
        receiver.listening() as listening,
        installation.running(folder, allow=base, keep=keep_running) as ours,
    ):
        arrivals = Arrivals(folder, database_url=ours.database_url)
        story = Story(ours, arrivals, listening, base=base)
        broken = _tell(story) | _look_back(story, ours)
        console.line(f"\nit took {console.duration(time.monotonic() - began)}")
        report.judge(broken, logs=ours.logs)
    console.line(f"look around: nightshift up --home {folder / 'stack'}")


def _tell(story: Story) -> dict[str, list[str]]:
    try:
        story.tell()
    except (NightshiftError, Failure) as error:
        return {TO_THE_END: [error.message]}
    return {TO_THE_END: []}


def _look_back(story: Story, ours: Installation) -> dict[str, list[str]]:
    """Show what has happened, also where the nights came to no end; what of it is broken."""
    try:
        found = facts.collect(ours.client, incoming=story.incoming, told=story.told())
    except NightshiftError as error:
        return {"The API tells what has happened.": [error.message]}
    report.show(found)
    broken = expectations.broken(found)
    report.write(ours.folder / "report.json", found, broken)
    return broken
