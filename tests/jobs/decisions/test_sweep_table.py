"""Which of several trained versions is the best, and their numbers side by side."""

from __future__ import annotations

import math

from jobs.decisions import sweep_table
from jobs.decisions.sweep_table import Measured


def test_the_numbers_of_a_report_are_named_by_split() -> None:
    report = {"validation": {"macro_f1": 0.5, "loss": 1, "rows": 9, "labels": ["a"]}, "test": {}}
    assert sweep_table.flat(report) == {"validation/loss": 1, "validation/macro_f1": 0.5}
    assert sweep_table.flat({"task": "classify", "accuracy": 0.5}) == {"test/accuracy": 0.5}


def test_the_best_is_found_in_the_good_direction_of_the_metric() -> None:
    f1 = [Measured("macro_f1", value) for value in (None, 0.5, 0.7, 0.7)]
    assert sweep_table.best(f1) == 2
    assert sweep_table.best([Measured("loss", value) for value in (math.nan, 2.0, 1.0)]) == 2


def test_there_is_no_best_of_what_cannot_be_compared() -> None:
    assert sweep_table.best([]) is None
    assert sweep_table.best([Measured("loss", None)]) is None
    assert sweep_table.best([Measured("loss", 1.0), Measured("macro_f1", 1.0)]) is None
    assert sweep_table.best([Measured("", None), Measured("loss", 1.0)]) == 1
