"""``python -m benchmarks [CORPUS]``: the benchmarks one after the other, then the page of them.

Those that compare on a corpus run where one is given, a CSV file with columns ``text`` and
``label``. ``chinese``, ``generation`` and ``same_labels`` need more than that, and are run by
themselves.
"""

from __future__ import annotations

import subprocess
import sys

ALONE = (
    *("job_overhead", "two_workers", "short_rows", "schedules", "folding"),
    "metrics_overhead",
)
ON_A_CORPUS = ("planner", "engine", "finetune")

corpus = sys.argv[1:2]
for name in ALONE + (ON_A_CORPUS if corpus else ()):
    given = corpus if name in ON_A_CORPUS else []
    print(f"\n== {name}", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *given], check=True)
subprocess.run([sys.executable, "-m", "benchmarks.report"], check=True)
