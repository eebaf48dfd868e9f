"""``nightshift pipeline``: a pipeline of the transformers library over every row."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from api.cli import bulk
from api.cli.failures import Failure
from jobs.kinds import PipelineTask


@bulk.command("pipeline")
def pipeline(
    *,
    task: Annotated[
        PipelineTask | None, typer.Option(help="Default: what the model was made for.")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="What the pipeline is called with; VALUE is JSON or a text. Several times.",
        ),
    ] = None,
    batch_rows: Annotated[
        int | None, typer.Option(help="Rows at once. Default: 1 on a CPU, else 16.")
    ] = None,
    dtype: bulk.Dtype = "auto",
) -> dict[str, Any]:
    """Find entities, fill masks, classify images, transcribe speech: one row, one answer as JSON.

    Of images and sounds each row is a URI that the workers may read.
    """
    return {
        "task": task,
        "parameters": dict(map(_parameter, parameter or [])),
        "batch_rows": batch_rows,
        "dtype": dtype,
    }


def _parameter(given: str) -> tuple[str, Any]:
    name, equals, value = given.partition("=")
    if not name or not equals:
        raise Failure(f"--parameter must be NAME=VALUE, such as top_k=3, not {given!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
