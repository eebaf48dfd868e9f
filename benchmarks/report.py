"""``python -m benchmarks.report``: the figures in ``benchmarks/results`` as a page with plots.

Writes ``docs/benchmarks.md`` and, for each comparison, a plot in ``docs/plots/``. No figure is
typed in: a benchmark that has left no file has no section.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import machine

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "benchmarks.md"
PLOTS = DOCS / "plots"

CORPORA = {"news": "news as it comes", "mixed": "rows of 5 to 512 tokens"}
FORMATS = ("jsonl", "csv", "parquet")

HEAD = """\
# Benchmarks

Every table is made of the file named below it, by `python -m benchmarks.report`; every file by the
command under it. What is compared takes turns within one run. A ratio is the median over the rounds
of that run, and says more than the rates, which are of one machine and one day.
"""

Record = Mapping[str, Any]


def main() -> None:
    records = read()
    PAGE.write_text(page(records), encoding="utf-8")
    PLOTS.mkdir(exist_ok=True)
    for name, record in records.items():
        if name.startswith("engine_"):
            _draw(record, PLOTS / f"{name}.svg")
    print(PAGE)


def read() -> dict[str, Record]:
    """The figures that were kept, by the benchmark's name."""
    files = sorted(machine.RESULTS.glob("*.json"))
    return {file.stem: json.loads(file.read_bytes()) for file in files}


def page(records: Mapping[str, Record]) -> str:
    """The page in Markdown."""
    sections = [HEAD]
    for name, record in records.items():
        for prefix, write in SECTIONS.items():
            if name.startswith(prefix):
                lines = [*write(record), "", _origin(name, record)]
                sections.append("\n".join(lines) + "\n")
    return "\n".join(sections)


def _origin(name: str, record: Record) -> str:
    where = record["machine"]
    device = record.get("gpu") or f"{where['cores']} cores of {where['processor']}"
    return (
        f"`{record['command']}` on {device}, {where['at'][:10]}: "
        f"[{name}.json](../benchmarks/results/{name}.json)"
    )


def _engine(record: Record) -> Iterator[str]:
    threads = record["threads"]
    words = "one thread" if threads == 1 else f"{threads} threads"
    yield f"## The engine against what people would run instead, {words}"
    yield ""
    yield (
        "Real tokens per second; how many times as fast the engine is; the share of what a large "
        "matrix product reaches on the same device, in useful work; labels equal to the engine's."
    )
    for corpus, words in CORPORA.items():
        found = record[corpus]
        yield ""
        yield f"{found['rows']:,} rows, {found['tokens']:,} tokens: {words}."
        yield ""
        yield "| | tokens/s | engine over it | of the limit | labels equal |"
        yield "|---|---:|---:|---:|---:|"
        for peer, each in found["peers"].items():
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
        f"{record['prompts']} prompts of mixed length, at most {record['most_new_tokens']} new "
        "tokens, temperature 0, random weights."
    )
    yield ""
    yield "| | new tokens/s | engine over it | texts equal |"
    yield "|---|---:|---:|---:|"
    for peer, each in record.items():
        if isinstance(each, dict) and "new_tokens_per_second" in each:
            yield (
                f"| {peer} | {each['new_tokens_per_second']:,.0f} | {each['engine_over_it']:.2f} | "
                f"{each['texts_equal']:.1%} |"
            )


def _planner(record: Record) -> Iterator[str]:
    yield "## The planner against a bare stream of pyarrow"
    yield ""
    yield f"{record['rows']:,} rows, one thread each."
    yield ""
    yield "| | planner, rows/s | bare, rows/s | planner over bare |"
    yield "|---|---:|---:|---:|"
    for kind in FORMATS:
        each = record[kind]
        yield (
            f"| {kind} | {each['planner_rows_per_second']:,.0f} | "
            f"{each['bare_rows_per_second']:,.0f} | {each['planner_over_bare']:.2f} |"
        )


def _job(record: Record) -> Iterator[str]:
    yield "## A job against the engine alone"
    yield ""
    yield f"{record['rows']:,} rows in chunks of {record['chunk_rows']}, a warm worker."
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


def _million(record: Record) -> Iterator[str]:
    yield f"## {record['rows']:,} short rows through everything"
    yield ""
    yield f"{record['rows_per_second']:,.0f} rows/s; peaks of memory in MiB:"
    yield ""
    yield "| API | planner | control | client | worker above its model |"
    yield "|---:|---:|---:|---:|---:|"
    names = ("api_peak", "planner_peak", "control_peak", "client_peak", "worker_above_model")
    yield "| " + " | ".join(f"{record[f'{name}_mib']:.0f}" for name in names) + " |"


def _two_workers(record: Record) -> Iterator[str]:
    yield "## Two workers of one thread against one"
    yield ""
    yield (
        f"{record['rows']:,} rows: {record['one_worker_rows_per_second']:,.0f} rows/s with one, "
        f"{record['two_workers_rows_per_second']:,.0f} with two, "
        f"{record['two_over_one_median']:.2f} times as many."
    )


SECTIONS = {
    "engine_": _engine,
    "generation_": _generation,
    "job_overhead": _job,
    "million_rows": _million,
    "planner": _planner,
    "two_workers": _two_workers,
}
"""What writes about a record, by how its name begins."""


def _draw(record: Record, file: Path) -> None:
    """Bars of real tokens per second, a panel for each corpus."""
    import matplotlib as mpl  # noqa: PLC0415 - of the extra `bench`
    from matplotlib.figure import Figure  # noqa: PLC0415

    mpl.rcParams["svg.hashsalt"] = record["benchmark"]  # the same figures make the same file
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    panels = figure.subplots(1, len(CORPORA), sharey=True)
    for panel, (corpus, words) in zip(panels, CORPORA.items(), strict=True):
        found = record[corpus]["peers"]
        names = list(found)[::-1]
        rates = [found[name]["tokens_per_second"] for name in names]
        colors = ["#1f6f8b" if name.startswith("engine") else "#b9c4c9" for name in names]
        panel.bar_label(panel.barh(names, rates, color=colors), fmt="{:,.0f}", padding=3)
        panel.set_title(words)
        panel.set_xlim(0, 1.15 * max(rates))
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xlabel("real tokens per second")
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main()
