"""``nightshift classify``: from a corpus and a model to one result per row."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import connection, corpora, printing, watching
from api.cli.failures import Failure
from api.client import Client
from jobs.specs import CorpusFormat, LongTexts, OutputFormat

ENDINGS = {
    ".parquet": OutputFormat.PARQUET,
    ".jsonl": OutputFormat.JSONL,
    ".csv": OutputFormat.CSV,
}


def classify(
    corpus: Annotated[
        str, typer.Argument(help="A local file, an uploaded file's id, or a URI (s3://, hf://).")
    ],
    *,
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="name@version, name@alias, hf:org/name, a folder or a URI."
        ),
    ],
    text_column: Annotated[str | None, typer.Option(help="Default: the likeliest.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Copied to each result.")] = None,
    labels: Annotated[
        str | None,
        typer.Option(help='"A,B,C": the nearest of these texts wins; the model is an encoder.'),
    ] = None,
    top_k: Annotated[int, typer.Option(help="How many labels, best first.")] = 1,
    all_scores: Annotated[bool, typer.Option("--all-scores", help="Every label's score.")] = False,
    multi_label: Annotated[
        bool | None,
        typer.Option("--multi-label/--single-label", help="Default: as the model's config says."),
    ] = None,
    long_texts: Annotated[
        LongTexts, typer.Option(help="Cut them, or average over windows.")
    ] = LongTexts.TRUNCATE,
    corpus_format: Annotated[
        CorpusFormat | None, typer.Option("--format", help="Default: by the name's ending.")
    ] = None,
    encoding: Annotated[str, typer.Option(help="Of a text corpus.")] = "utf-8",
    chunk_rows: Annotated[int | None, typer.Option(help="Rows that one worker takes.")] = None,
    pool: Annotated[str, typer.Option(help="Which workers.")] = "cpu",
    priority: Annotated[int, typer.Option(help="Higher goes first.")] = 0,
    keep_text: Annotated[bool, typer.Option("--keep-text", help="Repeat each text.")] = False,
    postgres: Annotated[bool, typer.Option("--postgres", help="Result rows as a table.")] = False,
    name: Annotated[str | None, typer.Option(help="For people.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Wait, then write results here: .parquet, .jsonl, .csv.")
    ] = None,
    watch: Annotated[
        bool | None, typer.Option("--watch/--no-watch", help="Default: on a terminal.")
    ] = None,
    json: connection.Json = False,
    api: connection.Api = None,
) -> None:
    """Give every row of a corpus its label."""
    options = {
        "labels": _labels(labels),
        "top_k": top_k,
        "all_scores": all_scores,
        "multi_label": multi_label,
        "long_texts": long_texts,
    }
    source = {
        **corpora.source(corpus),
        "format": corpus_format,
        "encoding": encoding,
        "text_column": text_column,
        "id_column": id_column,
    }
    spec = _checked(
        corpus=source,
        model=corpora.model(model),
        classify=options,
        output={"format": _output_format(out), "postgres": postgres, "keep_text": keep_text},
        chunk_rows=chunk_rows,
        pool=pool,
        priority=priority,
        name=name,
    )
    _run(spec, corpus=corpus, out=out, watch=watch, json=json, api=api)


def _run(
    spec: dict[str, Any],
    *,
    corpus: str,
    out: Path | None,
    watch: bool | None,
    json: bool,
    api: str | None,
) -> None:
    with connection.connect(api) as client:
        corpora.upload(client, [(spec["corpus"], corpus)])
        job = client.submit(spec)
        if watch if watch is not None else watching.is_terminal():
            printing.note(f"{job['id']} submitted")
            job = watching.job(client, job["id"])
        elif out is not None:
            job = watching.wait(client, job["id"])
        else:
            _show_submitted(job, json=json)
            return
        _deliver(client, job, out=out, json=json)


def _show_submitted(job: dict[str, Any], *, json: bool) -> None:
    if json:
        printing.as_json(job)
    else:
        printing.line(job["id"])


def _deliver(client: Client, job: dict[str, Any], *, out: Path | None, json: bool) -> None:
    if json:
        printing.as_json(job)
    else:
        watching.summary(job)
    watching.check_succeeded(job)
    if out is not None:
        with watching.transfer("fetching", out) as progress:
            client.download(job["id"], out, progress=progress)
    if not json:
        where = out or f"`nightshift jobs results {job['id']}`"
        printing.line(f"results: {where}")


def _labels(text: str | None) -> list[str] | None:
    """Labels as in a line of CSV, so that one with a comma can be quoted."""
    if text is None:
        return None
    return [label.strip() for label in next(csv.reader([text], skipinitialspace=True), [])]


def _output_format(out: Path | None) -> OutputFormat | None:
    if out is None:
        return None
    if out.suffix not in ENDINGS:
        raise Failure(f"--out must end in {', '.join(ENDINGS)}, and {out.name!r} does not")
    if not out.absolute().parent.is_dir():
        raise Failure(f"the folder of --out, {out.absolute().parent}, must exist")
    return ENDINGS[out.suffix]


def _checked(**fields: Any) -> dict[str, Any]:
    """The spec as it will be sent."""
    return corpora.checked(fields).model_dump(mode="json")
