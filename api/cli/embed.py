"""``nightshift embed``: from a corpus and a model to a vector for every row."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from api.cli import bulk
from jobs.kinds import LongTexts, Pooling


@bulk.command("embed")
def embed(
    *,
    pooling: Annotated[
        Pooling | None,
        typer.Option(help="How tokens become one vector. Default: as the model's files say."),
    ] = None,
    normalize: Annotated[
        bool | None,
        typer.Option(
            "--normalize/--no-normalize", help="To length one. Default: as the model's files say."
        ),
    ] = None,
    dimensions: Annotated[
        int | None,
        typer.Option(help="Keep the first so many numbers. Default: as the model's files say."),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Put before every text. Default: as the model's files say.")
    ] = None,
    long_texts: bulk.LongTexts = LongTexts.TRUNCATE,
    stride: bulk.Stride = 64,
    max_tokens: bulk.MaxTokens = None,
    dtype: bulk.Dtype = "auto",
) -> dict[str, Any]:
    """Give every row of a corpus its vector."""
    return {
        "pooling": pooling,
        "normalize": normalize,
        "dimensions": dimensions,
        "prompt": prompt,
        "long_texts": long_texts,
        "stride": stride,
        "max_tokens": max_tokens,
        "dtype": dtype,
    }
