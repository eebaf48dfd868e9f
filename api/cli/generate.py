"""``nightshift generate``: a causal language model goes on from every row, or answers it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from api.cli import bulk


@bulk.command("generate")
def generate(
    *,
    chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--no-chat",
            help="A row is a message to the assistant. Default: as the model was trained, else if "
            "it has a chat template.",
        ),
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(help="The system message of every chat. Default: as the model was trained."),
    ] = None,
    max_new_tokens: bulk.MaxNewTokens = 128,
    stop: bulk.Stop = None,
    temperature: Annotated[
        float, typer.Option(help="0: the likeliest token is always next; above: sample.")
    ] = 0.0,
    top_p: Annotated[float, typer.Option(help="Sample from the likeliest this much.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Sample from the likeliest so many; 0: from all.")] = 0,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="1 is none. Default: as the model's files say.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of sampling; each row draws on its own.")] = 0,
    settings_column: Annotated[
        str | None,
        typer.Option(help='Rows\' own settings, as JSON: {"temperature": 0.7, "seed": 3}.'),
    ] = None,
    dtype: bulk.Dtype = "auto",
) -> dict[str, Any]:
    """Let a language model go on from every row of a corpus, or answer it."""
    return {
        "chat": chat,
        "system": system,
        "max_new_tokens": max_new_tokens,
        "stop": stop or [],
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
        "settings_column": settings_column,
        "dtype": dtype,
    }
