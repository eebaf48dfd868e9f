"""Evaluation reports as tables: metrics of each split, of each label, the confusion matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from api.cli import console, tables
from api.cli.tables import Column

Report = Mapping[str, Any]

MOST_LABELS = 20
"""Of a confusion matrix that still fits a terminal."""

METRICS = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "micro_f1": "micro F1",
    "perplexity": "perplexity",
    "bleu": "BLEU",
    "chrf": "chrF",
    "loss": "loss",
}
"""In the order in which they are shown."""


def show(job: Mapping[str, Any], report: Report) -> None:
    """The report of a job that has ended, what it registered, and whether an alias moved."""
    for split, found in _splits(report):
        console.line()
        _show_split(split, found)
    output = job["output"] or {}
    if output.get("model"):
        console.line()
        console.line(_registered(output))
    if output.get("promotion"):
        for line in _promotion(output["promotion"], model=output["model"]):
            console.line(line)


def metrics(found: Report) -> str:
    """The numbers of one report in a line."""
    shown = (
        f"{words} {number(found[name])}"
        for name, words in METRICS.items()
        if found.get(name) is not None
    )
    return ", ".join(shown)


def number(value: float | None) -> str:
    """A metric, to four places or four digits."""
    if value is None:
        return "-"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.4g}"  # noqa: PLR2004


def _splits(report: Report) -> Iterator[tuple[str, Report]]:
    """One report for each split, or the only one."""
    if "task" in report:
        yield "evaluation", report
        return
    yield from sorted(report.items(), key=lambda split: split[0] != "validation")


def _show_split(split: str, found: Report) -> None:
    console.line(f"{split}: {console.number(found['rows'])} rows, {metrics(found)}")
    if found.get("per_label"):
        tables.table(
            (Column("LABEL", cut=1), "ROWS", "PRECISION", "RECALL", "F1"),
            [
                (
                    label["label"],
                    console.number(label["rows"]),
                    *(number(label[name]) for name in ("precision", "recall", "f1")),
                )
                for label in found["per_label"]
            ],
        )
    if found.get("confusion"):
        _show_confusion(found["labels"], found["confusion"])


def _show_confusion(labels: list[str], counts: list[list[int]]) -> None:
    if len(labels) > MOST_LABELS:
        console.line(
            f"the confusion matrix of {len(labels)} labels is in `nightshift jobs report --json`"
        )
        return
    console.line("confusion, a row for each true label, a column for each predicted one:")
    tables.table(
        ("", *(_short(label) for label in labels)),
        [
            (label, *(console.number(count) for count in row))
            for label, row in zip(labels, counts, strict=True)
        ],
    )


def _short(label: str) -> str:
    return label if len(label) <= 12 else f"{label[:11]}…"  # noqa: PLR2004


def _registered(output: Mapping[str, Any]) -> str:
    facts = [f"registered {output['model']}"]
    if output.get("bytes"):
        facts.append(console.size(output["bytes"]))
    if output.get("best_step") is not None:
        facts.append(f"the weights of step {console.number(output['best_step'])}")
    if output.get("steps"):
        facts.append(f"{console.number(output['steps'])} steps trained")
    return ", ".join(facts)


def _promotion(found: Mapping[str, Any], *, model: str) -> tuple[str, str]:
    """Who has the alias now, with both numbers, and why."""
    mine = f"{found['metric']} {number(found['value'])}"
    if found["incumbent"] is None:
        kept = f"now {model}" if found["promoted"] else "still nothing"
        return f"{found['alias']}: {kept}, {mine}", f"  {found['reason']}"
    incumbent = _version(found["incumbent"], model=model)
    kept = f"now {model}" if found["promoted"] else f"still {incumbent}"
    theirs = f"{number(found['incumbent_value'])} of {incumbent}"
    said = f"{found['alias']}: {kept}, {mine} of {model} against {theirs}"
    return said, f"  {found['reason']}"


def _version(incumbent: int | str, *, model: str) -> str:
    """`name@version` of an incumbent, which is told by its number or in full."""
    name = model.partition("@")[0]
    return f"{name}@{incumbent}" if isinstance(incumbent, int) else incumbent
