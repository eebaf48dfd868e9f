"""The page of the matrix, made as a whole from the file of results (``docs/generate.py``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.fault_matrix import cells, results
from benchmarks.fault_matrix.cells import CELLS, NO_SENSE, Cell, Work
from benchmarks.fault_matrix.results import Results

HEAD = """\
# The fault matrix

What happens to a job when a part of the installation fails in the middle of it, measured. `python
-m benchmarks.fault_matrix` starts real processes and servers, submits a small job, makes one fault
at a named moment, and waits for the end of the job; `python docs/generate.py` makes this page from
[fault_matrix.json](../benchmarks/results/fault_matrix.json). What is promised is in
[promises](promises.md); how exceptions are classified, in [faults](faults.md).
"""

TERMS = """\
- **holds**: the job succeeded; a bulk job with one result for every row (`nightshift jobs verify`),
  the labels of an undisturbed job, and no crash counted against a chunk unless a worker died; a
  fine-tune with the weights of an undisturbed one, bit for bit, and no lost run that was charged to
  the job itself. Afterwards every process was there again.
- **goes on after**: from the end of the fault, or from the kill, until the next rows are planned,
  the next chunk is committed, the next training step is reported, or the state of the job changes.
  0.0 s: the job had ended when the fault was over.
- **longest pause**: the longest time after the beginning of the fault without any of these. It says
  more than the time before where a process that dies still reports its last steps. The start of a
  worker or of a training program, which imports torch, is part of it.
- **done again**: beyond an undisturbed job. Chunks: claims without a commit. Training steps: those
  that the ledger had and that the next run trained again.
- **load**: how many processes wanted a core when the cell began, the mean of a minute. On a machine
  that is busy with other work everything takes longer.
"""

WORKS = {
    Work.BULK: "a classification of 1,500 rows in 60 chunks, with one worker",
    Work.FINETUNE: "a fine-tune of a model of two layers on one of two hosts",
}


def page(found: Results | None = None) -> str:
    """The page in Markdown."""
    found = results.read() if found is None else found
    return "\n".join([HEAD, *_parts(found)])


def _parts(found: Results) -> Iterator[str]:
    if not found["cells"]:
        yield "No cell has been run yet.\n"
        return
    yield from _conditions(found)
    yield TERMS
    for work in Work:
        yield from _table(work, found)
    yield from _broken(found)
    yield from _no_sense()


def _conditions(found: Results) -> Iterator[str]:
    about = found["machine"]
    measured = found["cells"]
    holding = sum(record["holds"] for record in measured.values())
    dates = sorted(record["at"][:10] for record in measured.values())
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    yield (
        f"{len(measured)} of {len(CELLS)} cells were run, and {holding} of them hold. Measured "
        f"{when} on {about['cores']} cores of {about['processor']}.\n"
    )
    settings = ", ".join(
        f"`NIGHTSHIFT_{name.upper()}={value:g}`" for name, value in found["settings"].items()
    )
    yield f"A fault lasts {found['fault_seconds']:g} s. Settings beside the defaults: {settings}.\n"
    yield "| fault | what it is |\n|---|---|"
    yield from (f"| {fault} | {what} |" for fault, what in cells.FAULTS.items())
    yield ""
    yield "| where | when |\n|---|---|"
    yield from (f"| {target} | {when} |" for target, when in cells.TARGETS.items())
    yield ""


def _table(work: Work, found: Results) -> Iterator[str]:
    yield f"## {str(work).capitalize()}\n"
    calm = found["undisturbed"].get(str(work))
    if calm:
        yield (
            f"The job is {WORKS[work]}. Undisturbed it took {calm['seconds']:.1f} s, with "
            f"{calm['pause_seconds']:.1f} s as its longest pause, at a load of {calm['load']}.\n"
        )
    yield "| where | fault | holds | goes on after | longest pause | done again | load |"
    yield "|---|---|---|---:|---:|---|---:|"
    for cell in CELLS:
        record = found["cells"].get(cell.name)
        if cell.work is work and record is not None:
            yield f"| {' | '.join(_row(cell, record))} |"
    yield ""


def _row(cell: Cell, record: dict[str, Any]) -> Iterator[str]:
    yield str(cell.target)
    yield str(cell.fault)
    yield "yes" if record["holds"] else "**no**"
    yield _seconds(record.get("recovery_seconds"))
    yield _seconds(record.get("pause_seconds"))
    yield ", ".join(f"{name}: {count}" for name, count in _done(record)) or "nothing"
    yield f"{record['load']:.1f}"


def _done(record: dict[str, Any]) -> list[tuple[str, int]]:
    return [(name, count) for name, count in record["waste"].items() if count]


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"


def _broken(found: Results) -> Iterator[str]:
    broken = {name: record for name, record in found["cells"].items() if not record["holds"]}
    yield "## Cells that do not hold\n"
    if not broken:
        yield "None.\n"
        return
    yield "| cell | what was seen | what follows |\n|---|---|---|"
    for name, record in broken.items():
        seen = "; ".join(record["problems"]).replace("\n", " ").replace("|", "\\|")[:400]
        yield f"| {name} | {seen} | {cells.consequence(name) or 'not known yet'} |"
    yield ""


def _no_sense() -> Iterator[str]:
    yield "## Cells that make no sense\n"
    yield "| work | where | why |\n|---|---|---|"
    yield from (f"| {work} | {target} | {why} |" for (work, target), why in NO_SENSE.items())
    yield ""
