"""``nightshift classify``: from a corpus and a model to the label of every row."""

from __future__ import annotations

import csv
from typing import Annotated, Any

import typer

from api.cli import bulk
from api.cli.failures import Failure
from jobs.kinds import LongTexts


@bulk.command("classify")
def classify(
    *,
    labels: Annotated[
        str | None,
        typer.Option(help='"A,B,C": the nearest of these texts wins; the model is an encoder.'),
    ] = None,
    hypothesis: Annotated[
        str | None,
        typer.Option(help='Zero-shot with an NLI model: "This text is about {}."'),
    ] = None,
    pair_column: Annotated[
        str | None, typer.Option(help="A second text, which is read together with the first.")
    ] = None,
    top_k: Annotated[int, typer.Option(help="How many labels, best first.")] = 1,
    all_scores: Annotated[bool, typer.Option("--all-scores", help="Every label's score.")] = False,
    multi_label: Annotated[
        bool | None,
        typer.Option("--multi-label/--single-label", help="Default: as the model's config says."),
    ] = None,
    threshold: Annotated[
        float, typer.Option(help="Of multi-label: the least score of a row's label.")
    ] = 0.5,
    long_texts: bulk.LongTexts = LongTexts.TRUNCATE,
    stride: bulk.Stride = 64,
    max_tokens: bulk.MaxTokens = None,
    dtype: bulk.Dtype = "auto",
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Faster on CPU, some labels change; says how many agree."),
    ] = False,
    explain_rows: Annotated[
        str | None, typer.Option(help="Explain these rows' labels: 0,17,42.")
    ] = None,
    explain_every: Annotated[
        int | None, typer.Option(help="Explain every so manieth row's label; 1: all.")
    ] = None,
    explain_below: Annotated[
        float | None, typer.Option(help="Explain labels whose score is below this.")
    ] = None,
    explain_steps: Annotated[
        int, typer.Option(help="Of each explanation; more are slower and more exact.")
    ] = 32,
) -> dict[str, Any]:
    """Give every row of a corpus its label."""
    return {
        "labels": _labels(labels),
        "hypothesis": hypothesis,
        "pair_column": pair_column,
        "top_k": top_k,
        "all_scores": all_scores,
        "multi_label": multi_label,
        "threshold": threshold,
        "long_texts": long_texts,
        "stride": stride,
        "max_tokens": max_tokens,
        "dtype": dtype,
        "int8": int8,
        "explain": _explain(
            explain_rows, every=explain_every, below=explain_below, steps=explain_steps
        ),
    }


def _explain(
    rows: str | None, *, every: int | None, below: float | None, steps: int
) -> dict[str, Any] | None:
    if rows is None and every is None and below is None:
        return None
    return {"rows": _places(rows or ""), "every": every, "below": below, "steps": steps}


def _places(text: str) -> list[int]:
    try:
        return [int(place) for place in text.split(",") if place.strip()]
    except ValueError:
        raise Failure(
            f"--explain-rows must be places in the corpus from 0, such as 0,17,42, not {text!r}"
        ) from None


def _labels(text: str | None) -> list[str] | None:
    """Labels as in a line of CSV, so that one with a comma can be quoted."""
    if text is None:
        return None
    return [label.strip() for label in next(csv.reader([text], skipinitialspace=True), [])]
