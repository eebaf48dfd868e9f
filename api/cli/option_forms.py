"""Options whose name, or whose way to be written, does not follow from the field of the spec."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from api.cli import corpus_arguments, times
from api.cli.failures import Failure
from api.cli.spec_options import OptionForm
from jobs.kinds import label_sets


def _rows(text: str) -> list[int]:
    try:
        return [int(row) for row in text.split(",") if row.strip()]
    except ValueError:
        raise Failure(
            f"--explain-rows must be places in the corpus from 0, such as 0,17,42, not {text!r}"
        ) from None


def _labels(text: str) -> list[str]:
    """Labels as in a line of CSV, so that one with a comma can be quoted."""
    try:
        return [label.strip() for label in next(csv.reader([text], skipinitialspace=True), [])]
    except csv.Error:
        raise Failure(
            f"--labels must be texts with commas between them, on one line, not {text[:60]!r}"
        ) from None


def _label_set(text: str) -> list[str] | str:
    """Labels, or the version of the registry whose labels are meant."""
    found = _labels(text)
    try:
        label_sets.version(text)
    except ValueError:
        return found
    return text if len(found) == 1 else found


def _parameters(given: list[str]) -> dict[str, Any]:
    return dict(map(_parameter, given))


def _parameter(given: str) -> tuple[str, Any]:
    name, equals, value = given.partition("=")
    if not name or not equals:
        raise Failure(f"--parameter must be NAME=VALUE, such as top_k=3, not {given!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


ONE_OR_SEVERAL = OptionForm(names=("--multi-label/--single-label",))
OTHER_CORPUS = OptionForm(metavar="CORPUS")

EVERY_KIND = {
    "kind": OptionForm(hidden_by="the command"),
    "corpus.file": OptionForm(hidden_by="the argument CORPUS"),
    "corpus.uri": OptionForm(hidden_by="the argument CORPUS"),
    "corpus.tag": OptionForm(hidden_by="the argument CORPUS"),
    "corpus.sql.source": OptionForm(hidden_by="the argument CORPUS"),
    "corpus.sources": OptionForm(names=("--and",), metavar="CORPUS"),
    "corpus.format": OptionForm(names=("--format",)),
    "model": OptionForm(names=("--model", "-m"), read=corpus_arguments.model),
    "output.format": OptionForm(hidden_by="the ending of --out"),
    "multi_label": ONE_OR_SEVERAL,
    "deadline_seconds": OptionForm(
        names=("--deadline", "--deadline-seconds"),
        type=str,
        metavar="DURATION|TIME",
        parser=times.seconds,
    ),
}
OF_A_KIND = {
    "classify.labels": OptionForm(type=str, metavar='"A,B,C"', read=_labels),
    "classify.multi_label": ONE_OR_SEVERAL,
    "classify.explain.rows": OptionForm(type=str, metavar="ROW,ROW", read=_rows),
    "pipeline.parameters": OptionForm(
        names=("--parameter",), type=list[str], metavar="NAME=VALUE", read=_parameters
    ),
}
BULK = EVERY_KIND | OF_A_KIND
"""Of commands that give every row a result."""

EVALUATE = EVERY_KIND
FINETUNE = EVERY_KIND | {
    "model": OptionForm(names=("--name", "--model-name")),
    "name": OptionForm(names=("--job-name",)),
    "base": OptionForm(read=corpus_arguments.model),
    "validation": OTHER_CORPUS,
    "test": OTHER_CORPUS,
    "machines": OptionForm(type=str, metavar="N|N..M"),
    "train.accelerate": OptionForm(names=("--accelerate-config",), type=Path),
    "lora": OptionForm(switch=True),
    "promote.alias": OptionForm(names=("--promote",), metavar="ALIAS", asks=True),
    "promote.corpus": OptionForm(names=("--promote-on",), metavar="CORPUS"),
    "promote.newest": OptionForm(metavar="ROWS|SHARE"),
    "promote.keep_rejected_for": OptionForm(type=str, metavar="DURATION"),
    "labels": OptionForm(type=str, metavar='"A,B,C"|MODEL', read=_label_set),
}
