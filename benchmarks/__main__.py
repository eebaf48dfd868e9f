"""``python -m benchmarks``: every benchmark, one after the other."""

from __future__ import annotations

import subprocess
import sys

NAMES = ("job_overhead", "million_rows")

for name in NAMES:
    print(f"\n== {name}", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
