"""``nightshift text2text``: an encoder with a decoder translates or summarizes every row."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from api.cli import bulk


@bulk.command("text2text")
def text2text(
    *,
    prompt: Annotated[
        str | None,
        typer.Option(
            help='Put before every text, such as "summarize: ". Default: as it was trained.'
        ),
    ] = None,
    source_language: Annotated[
        str | None,
        typer.Option(help="As the model's tokenizer names it: eng_Latn, en_XX, en."),
    ] = None,
    target_language: Annotated[
        str | None, typer.Option(help="The same, of what is written.")
    ] = None,
    max_new_tokens: bulk.MaxNewTokens = 128,
    stop: bulk.Stop = None,
    beams: Annotated[
        int | None,
        typer.Option(
            help="Hypotheses that are followed at once. Default: as the model's files say."
        ),
    ] = None,
    length_penalty: Annotated[
        float | None, typer.Option(help="Of beams: above 0, longer. Default: the same.")
    ] = None,
    no_repeat_ngram: Annotated[
        int | None,
        typer.Option(
            help="No sequence of so many tokens twice; 0: no such rule. Default: the same."
        ),
    ] = None,
    max_tokens: bulk.MaxTokens = None,
    dtype: bulk.Dtype = "auto",
) -> dict[str, Any]:
    """Translate or summarize every row of a corpus."""
    return {
        "prompt": prompt,
        "source_language": source_language,
        "target_language": target_language,
        "max_new_tokens": max_new_tokens,
        "stop": stop or [],
        "beams": beams,
        "length_penalty": length_penalty,
        "no_repeat_ngram": no_repeat_ngram,
        "max_tokens": max_tokens,
        "dtype": dtype,
    }
