"""``python -m benchmarks.report``: the figures in ``benchmarks/results`` as a page with plots.

Writes ``docs/benchmarks.md`` and, of the engine's rates and of memory, plots in ``docs/plots/``. No
figure is typed in: a benchmark that has left no file has no section.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "benchmarks.md"
PLOTS = DOCS / "plots"

PROCESSES = {
    "api_peak": "API",
    "planner_peak": "planner",
    "control_peak": "control",
    "client_peak": "client",
    "worker_above_model": "worker above its model",
}
CORPORA = {"news": "news as it comes", "mixed": "rows of 5 to 512 tokens"}
FORMATS = ("jsonl", "csv", "parquet")

HEAD = """\
# Benchmarks

`python -m benchmarks.report` makes every table from the file named below it, and the command there
makes the file. Everything that is compared takes turns within one run. A ratio is the median over
the rounds of that run; it means more than the rates, which depend on the machine and on the code of
that day. All figures are from CPUs: no GPU was available so far. Until 2026-11-27 the engine and
its peers shared a process; since then each has its own. Since 2026-11-29 the engine keeps memory
from batch to batch, and its last layer computes only what is read (decisions
[0021](decisions/0021-what-a-batch-frees-is-kept.md) and
[0022](decisions/0022-the-last-layer-says-what-is-read.md)); the limit is the faster one of MKL and
oneDNN.
"""

Record = Mapping[str, Any]


def main() -> None:
    records = read()
    PAGE.write_text(page(records), encoding="utf-8")
    PLOTS.mkdir(exist_ok=True)
    for name, record in records.items():
        if name.startswith("engine_"):
            _draw_rates(record, PLOTS / f"{name}.svg")
    if sizes := short_rows(records):
        _draw_memory(sizes, PLOTS / "memory.svg")
    print(PAGE)


def read() -> dict[str, Record]:
    """The figures in ``RESULTS``, by the benchmark's name."""
    files = sorted(machine.RESULTS.glob("*.json"))
    return {file.stem: json.loads(file.read_bytes()) for file in files}


def page(records: Mapping[str, Record]) -> str:
    """The page in Markdown."""
    sections = [HEAD]
    for prefix, write in SECTIONS.items():
        for name, record in records.items():
            if name.startswith(prefix):
                lines = [*write(record), "", _origin(name, record)]
                sections.append("\n".join(lines) + "\n")
    if sizes := short_rows(records):
        lines = [*_memory(sizes), "", *(f"- {_origin(f'short_rows_{n}', r)}" for n, r in sizes)]
        sections.append("\n".join(lines) + "\n")
    return "\n".join(sections)


def short_rows(records: Mapping[str, Record]) -> list[tuple[int, Record]]:
    """The sizes that were measured, smallest first."""
    measured = (record for name, record in records.items() if name.startswith("short_rows_"))
    return sorted(((record["rows"], record) for record in measured), key=lambda each: each[0])


def _origin(name: str, record: Record) -> str:
    device = record.get("gpu") or f"{record['machine']['cores']} cores of {_processor(record)}"
    return (
        f"`{record['command']}` on {device}, {record['machine']['at'][:10]}: "
        f"[{name}.json](../benchmarks/results/{name}.json)"
    )


def _processor(record: Record) -> str:
    about = record["machine"]
    name = str(about["processor"]).replace("(R)", "").replace("(TM)", "")
    family = f"family {about['family']}" if about.get("family") else ""
    more = ", ".join(filter(None, (family, about.get("vectors"))))
    return f"{name} ({more})" if more else name


def _engine(record: Record) -> Iterator[str]:
    threads = record["threads"]
    words = "one thread" if threads == 1 else f"{threads} threads"
    words = record.get("gpu") or f"{words} of {_processor(record)}"
    yield f"## The engine against what people would run instead, {words}"
    yield ""
    yield (
        "Real tokens per second; the engine's rate over the peer's; useful work as a share of a "
        "large matrix product on the same device, where useful work is what the model's layers "
        "compute for real tokens; labels equal to the engine's."
    )
    for corpus, described in CORPORA.items():
        figures = record[corpus]
        yield ""
        yield f"{figures['rows']:,} rows, {figures['tokens']:,} tokens: {described}."
        yield ""
        yield "| | tokens/s | engine over it | of the limit | labels equal |"
        yield "|---|---:|---:|---:|---:|"
        for peer, each in figures["peers"].items():
            yield (
                f"| {peer} | {each['tokens_per_second']:,.0f} | {each['engine_over_it']:.2f} | "
                f"{each['share_of_limit']:.0%} | {each['labels_equal']:.1%} |"
            )
    yield ""
    yield f"![real tokens per second, {words}](plots/{record['benchmark']}.svg)"


def _generation(record: Record) -> Iterator[str]:
    yield "## Generation"
    yield ""
    yield (
        f"{record['prompts']} prompts of 5 to 512 tokens, each with 8 to 128 new tokens at most; "
        f"{record['threads']} threads; random weights. Greedy decoding, and sampling at "
        "temperature 1."
    )
    yield ""
    yield (
        "| | greedy, new tokens/s | engine over it | texts equal | sampled, new tokens/s | "
        "engine over it |"
    )
    yield "|---|---:|---:|---:|---:|---:|"
    for peer, each in _dicts(record):
        if "texts_equal" in each:
            yield (
                f"| {peer} | {each['likeliest_new_tokens_per_second']:,.0f} | "
                f"{each['likeliest_engine_over_it']:.2f} | {each['texts_equal']:.1%} | "
                f"{each['sampled_new_tokens_per_second']:,.0f} | "
                f"{each['sampled_engine_over_it']:.2f} |"
            )


def _planner(record: Record) -> Iterator[str]:
    yield "## The planner against a bare stream of pyarrow"
    yield ""
    yield (
        f"{record['rows']:,} rows. Both read in one thread; the planner checks and numbers every "
        "row, and writes in a second thread."
    )
    yield ""
    yield "| | planner, rows/s | bare, rows/s | planner over bare | by processor time |"
    yield "|---|---:|---:|---:|---:|"
    for kind in FORMATS:
        each = record[kind]
        yield (
            f"| {kind} | {each['planner_rows_per_second']:,.0f} | "
            f"{each['bare_rows_per_second']:,.0f} | {each['planner_over_bare']:.2f} | "
            f"{each['planner_over_bare_by_processor_time']:.2f} |"
        )


def _job(record: Record) -> Iterator[str]:
    words = f" of {record['words_each']} words" if record["words_each"] else ""
    yield f"## A job of {record['rows']:,} rows{words} against the engine alone"
    yield ""
    yield f"In chunks of {record['chunk_rows']:,} rows, a warm worker, {record['rounds']} rounds."
    yield ""
    yield "| | |"
    yield "|---|---:|"
    yield f"| submit to first row | {record['submit_to_first_row_median_seconds']:.3f} s |"
    yield (
        "| between two chunks, beyond the engine's own time | "
        f"{record['overhead_per_chunk_median_seconds']:.3f} s |"
    )
    yield (
        "| share of the job outside the engine | "
        f"{record['share_of_job_outside_the_engine_median']:.1%} |"
    )
    yield f"| the job over the engine alone | {record['job_over_engine_alone_median']:.3f} |"


def _memory(sizes: Sequence[tuple[int, Record]]) -> Iterator[str]:
    yield "## Memory by the size of the corpus"
    yield ""
    yield (
        "Jobs of short rows with a random encoder of two layers: peaks of memory in MiB, and the "
        "most messages that were in the queue."
    )
    yield ""
    yield "| rows | rows/s | " + " | ".join(PROCESSES.values()) + " | queue |"
    yield "|---:" * (len(PROCESSES) + 3) + "|"
    for rows, record in sizes:
        peaks = (f"{record[f'{name}_mib']:.0f}" for name in PROCESSES)
        yield (
            f"| {rows:,} | {record['rows_per_second']:,.0f} | {' | '.join(peaks)} | "
            f"{record['queue_longest_messages']} |"
        )
    yield ""
    yield "![peaks of memory by rows](plots/memory.svg)"


def _two_workers(record: Record) -> Iterator[str]:
    yield "## Two workers of one thread against one"
    yield ""
    yield (
        f"{record['rows']:,} rows: {record['one_worker_rows_per_second']:,.0f} rows/s with one, "
        f"{record['two_workers_rows_per_second']:,.0f} with two, "
        f"{record['two_over_one_median']:.2f} times as many."
    )
    yield ""
    yield (
        "Bare matrix products, in turns with the jobs: two processes made "
        f"{record['matrix_products_two_over_one_median']:.2f} times as many as one. Beside two "
        "workers the rest of the installation took "
        f"{record['share_of_a_core_for_the_rest_median']:.1%} of a core."
    )


def _metrics_overhead(record: Record) -> Iterator[str]:
    yield "## Metrics and Flower on against off"
    yield ""
    yield (
        f"Whole jobs of {record['rows']:,} rows of {record['words_each']} words in chunks of "
        f"{record['chunk_rows']}, from accepted to written, in turns on two stacks. One has "
        f"metrics that are scraped every {record['scrape_seconds']:.0f} seconds, and Flower; the "
        f"other has neither. Medians of {record['rounds']} rounds, and of their ratios:"
    )
    yield ""
    yield "| | with | without | with over without |"
    yield "|---|---|---|---|"
    for unit, label in (
        ("seconds", "seconds"),
        ("processor_seconds", "processor seconds of all processes"),
    ):
        yield (
            f"| {label} | {record[f'on_median_{unit}']:.2f} | {record[f'off_median_{unit}']:.2f} | "
            f"{record[f'on_over_off_median_{unit}']:.3f} |"
        )


def _same_labels(record: Record) -> Iterator[str]:
    corpora = [name for name, figures in _dicts(record) if any(_dicts(figures))]
    yield f"## The engine's answers against the model row by row: {', '.join(corpora)}"
    yield ""
    yield (
        "Labels by label texts, labels of a trained head, and embeddings, in float32, for every "
        "row of a corpus."
    )
    yield ""
    yield (
        "| | rows | labels that differ | a head's that differ | largest difference of an "
        "embedding's component |"
    )
    yield "|---|---:|---:|---:|---:|"
    for corpus, figures in record.items():
        for chunks, each in _dicts(figures):
            yield (
                f"| {corpus}, {chunks} | {figures['rows']:,} | {each['labels_differing']} | "
                f"{each['heads_labels_differing']} | {each['embedding_difference']:.1e} |"
            )


def _schedules(record: Record) -> Iterator[str]:
    yield f"## {record['due']:,} of {record['schedules']:,} schedules due within one second"
    yield ""
    yield (
        "Seconds from the first fire time until the job of the last is there; then the question "
        "with which each turn of control begins, while none is due."
    )
    yield ""
    yield "| | |"
    yield "|---|---:|"
    for processes in record["processes"]:
        words = "1 control process" if processes == 1 else f"{processes} control processes"
        yield f"| {words} | {record[f'seconds_{processes}_processes']:.1f} s |"
    with_them = record["turn_question_median_milliseconds"]
    yield f"| the question of a turn | {with_them:.2f} ms |"
    without = record["turn_question_without_schedules_median_milliseconds"]
    yield f"| the same without its part about schedules | {without:.2f} ms |"


def _folding(record: Record) -> Iterator[str]:
    yield f"## A job of {record['chunks']:,} chunks that folds"
    yield ""
    yield (
        "Rows and bytes of the table of chunks with its indexes, when nothing in it is free. Then "
        f"two jobs of {record['verified']:,} chunks, of which one is folded: medians, in turns."
    )
    yield ""
    yield "| | before | folded |"
    yield "|---|---:|---:|"
    yield f"| rows | {record['before_rows']:,} | {record['after_rows']:,} |"
    size, left, objects = (
        record[name] / 2**20 for name in ("before_bytes", "after_bytes", "after_bytes_of_folds")
    )
    yield f"| Postgres | {size:.1f} MiB | {left:.1f} MiB |"
    yield f"| object store | | {objects:.1f} MiB |"
    before, after = (record[f"seconds_of_the_job_{when}"] for when in ("before", "after"))
    yield f"| the job itself (`jobs show`) | {1e3 * before:.0f} ms | {1e3 * after:.0f} ms |"
    for name, words in (("verify", "`jobs verify`"), ("page_of_chunks", "a page of 100 chunks")):
        rows, folded = (record[f"{name}_of_{how}_median_seconds"] for how in ("rows", "folded"))
        yield f"| {words} | {1e3 * rows:.0f} ms | {1e3 * folded:.0f} ms |"
    yield ""
    yield (
        f"Folding took {record['seconds_to_fold']:.1f} s, its longest transaction "
        f"{record['longest_transaction_of_folding_seconds']:.2f} s, and "
        f"{record['more_memory_for_folding_mib']:.0f} MiB of memory. Unfolding for a retry took "
        f"{record['seconds_to_retry']:.1f} s, its longest transaction "
        f"{record['longest_transaction_of_a_retry_seconds']:.2f} s."
    )


def _flower_jobs(record: Record) -> Iterator[str]:
    yield f"## Flower's tabs with {record['jobs']:,} jobs"
    yield ""
    yield (
        f"{record['jobs_that_run']} jobs run, each with {record['chunks_of_each']} chunks; the "
        f"others have ended. Seconds from a request to the end of its answer, {record['rounds']} "
        "rounds in which the pages take turns."
    )
    yield ""
    yield "| page | median | largest |"
    yield "|---|---:|---:|"
    for name, median in record["median_seconds"].items():
        yield f"| {name} | {median:.3f} s | {record['largest_seconds'][name]:.3f} s |"


def _dicts(record: object) -> Iterator[tuple[str, Record]]:
    for name, each in record.items() if isinstance(record, dict) else ():
        if isinstance(each, dict):
            yield name, each


SECTIONS = {
    "engine_": _engine,
    "folding": _folding,
    "flower_jobs": _flower_jobs,
    "generation_": _generation,
    "job_overhead": _job,
    "metrics_overhead": _metrics_overhead,
    "planner": _planner,
    "same_labels": _same_labels,
    "schedules": _schedules,
    "two_workers": _two_workers,
}
"""The writer of a section, by the prefix of the record's name."""


def _draw_memory(sizes: Sequence[tuple[int, Record]], file: Path) -> None:
    """A line for each process."""
    figure, panel = _figure("memory", size=(7, 3.6))
    for name, words in PROCESSES.items():
        peaks = [record[f"{name}_mib"] for _, record in sizes]
        panel.plot([rows for rows, _ in sizes], peaks, marker="o", label=words)
    panel.set_xscale("log")
    panel.set_ylim(bottom=0)
    panel.set_xlabel("rows")
    panel.set_ylabel("MiB at most")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(file, metadata={"Date": None})


def _draw_rates(record: Record, file: Path) -> None:
    """Bars of real tokens per second, a panel for each corpus."""
    figure, panels = _figure(record["benchmark"], size=(10, 3.6), panels=len(CORPORA))
    for panel, (corpus, words) in zip(panels, CORPORA.items(), strict=True):
        by_peer = record[corpus]["peers"]
        names = list(by_peer)[::-1]
        rates = [by_peer[name]["tokens_per_second"] for name in names]
        colors = ["#1f6f8b" if name.startswith("engine") else "#b9c4c9" for name in names]
        panel.bar_label(panel.barh(names, rates, color=colors), fmt="{:,.0f}", padding=3)
        panel.set_title(words)
        panel.set_xlim(0, 1.15 * max(rates))
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xlabel("real tokens per second")
    figure.savefig(file, metadata={"Date": None})


def _figure(name: str, *, size: tuple[float, float], panels: int = 1) -> tuple[Any, Any]:
    """A figure and its panels; the same figures make the same file."""
    import matplotlib as mpl  # noqa: PLC0415 - of the extra `bench`
    from matplotlib.figure import Figure  # noqa: PLC0415

    mpl.rcParams["svg.hashsalt"] = name
    mpl.rcParams["svg.fonttype"] = "none"
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(1, panels, sharey=True)


if __name__ == "__main__":
    main()
