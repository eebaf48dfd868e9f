"""The page of benchmarks says what the files of figures say."""

from __future__ import annotations

import re

from benchmarks import report


def test_the_page_is_that_of_the_kept_figures() -> None:
    assert report.PAGE.read_text(encoding="utf-8") == report.page(report.read()), (
        "run `python -m benchmarks.report`"
    )


def test_every_plot_on_the_page_is_there() -> None:
    named = re.findall(r"\(plots/(.*?)\)", report.PAGE.read_text(encoding="utf-8"))
    assert sorted(named) == sorted(plot.name for plot in report.PLOTS.glob("*"))
