"""The commands of bulk jobs: corpus and model in, a result for every row out.

Each is made from the spec of its kind.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import connection, console, corpus_arguments, option_forms, progress_bars, spec_options
from api.cli.failures import Failure
from api.client import Client
from jobs.formats import OUTPUT_ENDINGS, OutputFormat
from jobs.kinds import BulkSpec


@dataclass(frozen=True, kw_only=True)
class BulkArguments:
    """What a command takes beside the options of its spec."""

    corpus: corpus_arguments.Argument
    out: Annotated[
        Path | None,
        typer.Option(
            help="Wait, then write results here: .parquet, .jsonl, .csv.",
            rich_help_panel=spec_options.PANELS["output"],
        ),
    ] = None
    watch: connection.Watch = None
    json: connection.Json = False
    api: connection.Api = None


def command(spec: type[BulkSpec]) -> Callable[..., None]:
    """The command of a kind, with the spec's words as its help."""
    options = spec_options.of_spec(spec, option_forms.BULK, overlay=False)

    def run(**given: Any) -> None:
        own = {field.name: given.pop(field.name) for field in fields(BulkArguments)}
        arguments = BulkArguments(**own)
        chosen = spec_options.gathered(options, given)
        kind = spec.model_fields["kind"].default
        _run(_spec(chosen, arguments, kind=kind), arguments)

    first, *rest = inspect.signature(BulkArguments, eval_str=True).parameters.values()
    parameters = [first, *(option.parameter for option in options), *rest]
    run.__doc__ = spec.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _spec(chosen: dict[str, Any], arguments: BulkArguments, *, kind: str) -> dict[str, Any]:
    """The spec as it will be sent. Raises ``Failure`` for what the API would refuse."""
    corpus = {**corpus_arguments.source(arguments.corpus), **chosen.get("corpus", {})}
    output = {**chosen.get("output", {}), "format": _output_format(arguments.out)}
    spec = {**chosen, "kind": kind, "corpus": corpus, "output": output}
    return corpus_arguments.checked(spec).model_dump(mode="json")


def _run(spec: dict[str, Any], arguments: BulkArguments) -> None:
    with connection.connect(arguments.api) as client:
        corpus_arguments.upload(client, [(spec["corpus"], arguments.corpus)])
        job = client.submit(spec)
        if progress_bars.is_wanted(arguments.watch):
            console.note(f"{job['id']} submitted")
            _deliver(client, progress_bars.job(client, job["id"]), arguments)
        elif arguments.out is not None:
            _deliver(client, progress_bars.wait(client, job["id"]), arguments)
        elif arguments.json:
            console.as_json(job)
        else:
            console.line(job["id"])


def _deliver(client: Client, job: dict[str, Any], arguments: BulkArguments) -> None:
    out = arguments.out
    if arguments.json:
        console.as_json(job)
    else:
        progress_bars.summary(job)
    progress_bars.check_succeeded(job)
    if out is not None:
        with progress_bars.transfer("fetching", out) as progress:
            client.download(job["id"], out, progress=progress)
    if not arguments.json:
        where = out or f"`nightshift jobs results {job['id']}`"
        console.line(f"results: {where}")


def _output_format(out: Path | None) -> OutputFormat | None:
    if out is None:
        return None
    if out.suffix not in OUTPUT_ENDINGS:
        raise Failure(f"--out must end in {', '.join(OUTPUT_ENDINGS)}, and {out.name!r} does not")
    if not out.absolute().parent.is_dir():
        raise Failure(f"the folder of --out, {out.absolute().parent}, must exist")
    return OUTPUT_ENDINGS[out.suffix]
