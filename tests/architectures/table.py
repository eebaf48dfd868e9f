"""``python -m tests.architectures.table``: try every architecture, and write docs/architectures.md.

With ``--kept`` outcomes are written to a file as they come, so that a run that was interrupted can
be continued.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import logging

from tests.support import tiny_architectures
from tests.support.tiny_architectures import AUTOS, Outcome

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
TIME_LIMIT = 120
"""Seconds for one architecture."""

HEAD = """\
# Architectures and how their rows share batches

Made by `python -m tests.architectures.table`: a tiny random model of every type that transformers
{version} maps to a kind of job. *right*: each row alone, in batches and backwards, the answers are
those of the library for the row alone, and the last column says how rows share batches ([decision
0028](decisions/0028-how-rows-share-a-batch-is-probed.md)). *refused*: the job fails with that
reason before its first row. *not built*: no tiny model could be made, or the library itself
cannot compute these texts.

"""


def outcomes(kinds: Iterable[str], *, done: Iterable[Outcome] = ()) -> Iterator[Outcome]:
    """The outcomes of all architectures of these kinds that are not in ``done``."""
    known = {(each.kind, each.type) for each in done}
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            for model_type in tiny_architectures.architectures(kind):
                if (kind, model_type) not in known:
                    yield _in_time(kind, model_type, Path(folder) / f"{kind}-{model_type}")


def _in_time(kind: str, model_type: str, folder: Path) -> Outcome:
    def end(*_: object) -> None:
        raise TimeoutError(f"it took more than {TIME_LIMIT} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(TIME_LIMIT)
    try:
        return tiny_architectures.tried(kind, model_type, folder)
    except TimeoutError as late:
        return Outcome(kind, model_type, "not built", str(late))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def page(outcomes: Iterable[Outcome], *, version: str) -> str:
    """The page of all outcomes."""
    lines = [HEAD.format(version=version)]
    every = sorted(outcomes)
    for kind in AUTOS:
        mine = [each for each in every if each.kind == kind]
        counts = Counter(each.outcome for each in mine)
        words = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
        lines.append(f"## {kind}\n\n{len(mine)} types: {words}.\n")
        lines.append("| type | outcome | |\n|---|---|---|")
        lines += [f"| `{each.type}` | {each.outcome} | {_plain(each.detail)} |" for each in mine]
        lines.append("")
    return "\n".join(lines)


def _plain(text: str) -> str:
    return text.replace("|", "/").replace("<", "&lt;").replace("[", "\\[").strip()


def _read(kept: Path) -> list[Outcome]:
    if not kept.exists():
        return []
    return [Outcome(**json.loads(line)) for line in kept.read_text().splitlines()]


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0 if no answer is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kept", type=Path, help="a file of outcomes to continue from")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    logs: Any = logging
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    known = _read(options.kept) if options.kept else []
    for outcome in outcomes(AUTOS, done=known):
        sys.stdout.write(f"{outcome.kind} {outcome.type}: {outcome.outcome} {outcome.detail}\n")
        known.append(outcome)
        if options.kept:
            with options.kept.open("a") as file:
                file.write(json.dumps(asdict(outcome)) + "\n")
    import transformers  # noqa: PLC0415 (for its version alone)

    PAGE.write_text(page(known, version=transformers.__version__), encoding="utf-8")
    return int(any(each.outcome == "wrong" for each in known))


if __name__ == "__main__":
    sys.exit(main())
