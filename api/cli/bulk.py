"""What the commands of bulk work share: corpus, model, output, and the way from one to the other.

A command is written as a function from the options of its kind to their part of the spec;
``command`` adds the fields of ``Request``, submits the job and delivers what came of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from api.cli import connection, console, corpus_arguments, progress_bars
from api.cli.failures import Failure
from api.client import Client
from jobs import kinds
from jobs.kinds import CorpusFormat, OutputFormat

ENDINGS = {
    ".parquet": OutputFormat.PARQUET,
    ".jsonl": OutputFormat.JSONL,
    ".csv": OutputFormat.CSV,
}

LongTexts = Annotated[
    kinds.LongTexts, typer.Option(help="Cut them, or average over overlapping windows.")
]
Stride = Annotated[int, typer.Option(help="Tokens that neighbouring windows share.")]
MaxTokens = Annotated[
    int | None,
    typer.Option(help="Tokens read of a text. Default: as it was trained, or what the model can."),
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(help="Of the weights; auto: float32 on CPU, bfloat16 where a device has it."),
]
MaxNewTokens = Annotated[int, typer.Option(help="The longest output.")]
Stop = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help="End before this text. May be given several times."),
]

Options = Callable[..., dict[str, Any]]
"""From a kind's own options, as keywords, to their part of the spec."""

OF_THE_CORPUS = frozenset({"pair_column", "settings_column"})
"""Options of some kinds that say how the corpus is read."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What every kind is asked for beside its own options; each field is an option."""

    corpus: Annotated[
        str, typer.Argument(help="A local file, an uploaded file's id, or a URI (s3://, hf://).")
    ]
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="name@version, name@alias, hf:org/name, a folder or a URI."
        ),
    ]
    text_column: Annotated[str | None, typer.Option(help="Default: the likeliest.")] = None
    id_column: Annotated[str | None, typer.Option(help="Copied to each result.")] = None
    corpus_format: Annotated[
        CorpusFormat | None, typer.Option("--format", help="Default: by the name's ending.")
    ] = None
    encoding: Annotated[str, typer.Option(help="Of a text corpus.")] = "utf-8"
    chunk_rows: Annotated[int | None, typer.Option(help="Rows that one worker takes.")] = None
    max_failed: Annotated[
        str | None,
        typer.Option(help="Rows that may fail: 10%, 0.1 or 25. Default: all but one."),
    ] = None
    pool: Annotated[str, typer.Option(help="Which workers.")] = "cpu"
    priority: Annotated[int, typer.Option(help="Higher goes first.")] = 0
    keep_text: Annotated[bool, typer.Option("--keep-text", help="Repeat each text.")] = False
    postgres: Annotated[bool, typer.Option("--postgres", help="Result rows as a table.")] = False
    name: Annotated[str | None, typer.Option(help="For people.")] = None
    out: Annotated[
        Path | None, typer.Option(help="Wait, then write results here: .parquet, .jsonl, .csv.")
    ] = None
    watch: Annotated[
        bool | None, typer.Option("--watch/--no-watch", help="Default: on a terminal.")
    ] = None
    json: connection.Json = False
    api: connection.Api = None


def command(kind: str) -> Callable[[Options], Callable[..., None]]:
    """A decorator that makes the command of a kind of job."""

    def made(options: Options) -> Callable[..., None]:
        def run(**given: Any) -> None:
            request = Request(**{field.name: given.pop(field.name) for field in fields(Request)})
            _run(_spec(request, kind=kind, options=options(**given)), request)

        run.__doc__ = options.__doc__
        # What typer makes options of: corpus and model, then the kind's own, then the others.
        shared = list(inspect.signature(Request, eval_str=True).parameters.values())
        own = inspect.signature(options, eval_str=True).parameters.values()
        run.__signature__ = inspect.Signature([*shared[:2], *own, *shared[2:]])  # type: ignore[attr-defined]
        return run

    return made


def _spec(request: Request, *, kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """The spec as it will be sent. Raises ``Failure`` for what the API would refuse."""
    corpus = {
        **corpus_arguments.source(request.corpus),
        "format": request.corpus_format,
        "encoding": request.encoding,
        "text_column": request.text_column,
        "id_column": request.id_column,
        **{name: options[name] for name in OF_THE_CORPUS & options.keys()},
    }
    options = {name: value for name, value in options.items() if name not in OF_THE_CORPUS}
    output = {
        "format": _output_format(request.out),
        "postgres": request.postgres,
        "keep_text": request.keep_text,
    }
    spec = {
        "kind": kind,
        "corpus": corpus,
        "model": corpus_arguments.model(request.model),
        kind: options,
        "output": output,
        "chunk_rows": request.chunk_rows,
        "max_failed": request.max_failed,
        "pool": request.pool,
        "priority": request.priority,
        "name": request.name,
    }
    return corpus_arguments.checked(spec).model_dump(mode="json")


def _run(spec: dict[str, Any], request: Request) -> None:
    with connection.connect(request.api) as client:
        corpus_arguments.upload(client, [(spec["corpus"], request.corpus)])
        job = client.submit(spec)
        if request.watch if request.watch is not None else progress_bars.is_terminal():
            console.note(f"{job['id']} submitted")
            _deliver(client, progress_bars.job(client, job["id"]), request)
        elif request.out is not None:
            _deliver(client, progress_bars.wait(client, job["id"]), request)
        elif request.json:
            console.as_json(job)
        else:
            console.line(job["id"])


def _deliver(client: Client, job: dict[str, Any], request: Request) -> None:
    out = request.out
    if request.json:
        console.as_json(job)
    else:
        progress_bars.summary(job)
    progress_bars.check_succeeded(job)
    if out is not None:
        with progress_bars.transfer("fetching", out) as progress:
            client.download(job["id"], out, progress=progress)
    if not request.json:
        where = out or f"`nightshift jobs results {job['id']}`"
        console.line(f"results: {where}")


def _output_format(out: Path | None) -> OutputFormat | None:
    if out is None:
        return None
    if out.suffix not in ENDINGS:
        raise Failure(f"--out must end in {', '.join(ENDINGS)}, and {out.name!r} does not")
    if not out.absolute().parent.is_dir():
        raise Failure(f"the folder of --out, {out.absolute().parent}, must exist")
    return ENDINGS[out.suffix]
