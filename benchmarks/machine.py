"""The machine that a benchmark runs on, and the file for its figures."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workers import threads

RESULTS = Path(os.environ.get("BENCHMARK_RESULTS") or Path(__file__).parent / "results")

VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2"}
"""By flags of Linux, widest first."""


def describe() -> dict[str, Any]:
    """The machine, for readers of the figures."""
    lines = (each.partition(":") for each in Path("/proc/cpuinfo").read_text().splitlines())
    facts = {name.strip(): value.strip() for name, _, value in lines}
    flags = facts.get("flags", "").split()
    return {
        "processor": facts.get("model name", platform.processor()),
        "family": facts.get("cpu family", ""),  # one name may stand for several generations
        "vectors": next((name for flag, name in VECTORS.items() if flag in flags), ""),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def short_name() -> str:
    """The processor's, for the name of a file: such figures have a file for each processor."""
    here = describe()
    facts = (here["processor"], here["family"], here["vectors"].replace("-", ""))
    words = " ".join(facts).lower().replace("(r)", " ")
    return "_".join(re.findall(r"[a-z0-9-]+", words))


def use_threads(count: int) -> None:
    """Restart this command with ``count`` CPU threads, if it has others; 0 leaves them as they are.

    PyTorch reads the number when it is imported, as in a worker; so do the peers that use it.
    """
    if count and os.environ.get(threads.OPENMP) != str(count):
        environment = {**os.environ, threads.OPENMP: str(count)}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def keep(name: str, figures: dict[str, Any]) -> None:
    """Write the figures, with machine and command, to ``RESULTS``, and print them.

    Nested figures are only in the file; a benchmark prints those as it goes.
    """
    program = Path(sys.argv[0])
    given = [Path(each).name if "/" in each else each for each in sys.argv[1:]]
    command = " ".join(["python -m", f"{program.parent.name}.{program.stem}", *given])
    record = {"benchmark": name, "command": command, "machine": describe(), **figures}
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps(record, indent=2) + "\n")
    plain = {key: value for key, value in figures.items() if not isinstance(value, dict)}
    width = max(map(len, plain), default=0)
    for key, value in plain.items():
        shown = f"{value:,.3f}" if isinstance(value, float) else value
        print(f"{key:<{width}}  {shown}")
    print(file)
