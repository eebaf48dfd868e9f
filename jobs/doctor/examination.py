"""All checks at once, each within a time limit."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jobs.doctor import machine, servers, store
from jobs.doctor.check_results import CheckResult, error, redacted, secrets
from jobs.settings import Settings

Check = Callable[[], list[CheckResult]]


def checks(settings: Settings, *, home: Path | None, seconds: float) -> dict[str, Check]:
    """By name, the checks of the servers and of this machine."""
    return {
        "settings": functools.partial(machine.variables, os.environ),
        "postgres": functools.partial(servers.postgres, settings),
        "redis": functools.partial(servers.redis, settings, seconds=seconds),
        "objects": functools.partial(store.check, settings),
        "folders": functools.partial(machine.folders, settings, home=home),
        "workers": functools.partial(servers.crew, settings),
    }


def run(
    found: Mapping[str, Check], *, settings: Settings, seconds: float, others: Sequence[str] = ()
) -> list[CheckResult]:
    """What they find, in their order; none takes longer than ``seconds``.

    They run side by side, so that the whole takes no longer either. ``others``: secrets besides
    those of the settings.
    """
    answers: dict[str, list[CheckResult]] = {}

    def answer(name: str, check: Check) -> None:
        try:
            answers[name] = check()
        except Exception as failure:  # noqa: BLE001 - one check must not end the others
            words = f"the check failed ({type(failure).__name__}: {failure})"
            answers[name] = [error(name, words, "report it with this line")]

    threads = [
        threading.Thread(target=answer, args=each, daemon=True)  # one that hangs keeps no one
        for each in found.items()
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    silent = f"it did not answer within {seconds:g} s"
    advice = "see whether it runs, and whether a firewall is between"
    findings = [
        finding for name in found for finding in answers.get(name) or [error(name, silent, advice)]
    ]
    return redacted(findings, secrets(settings) | set(others))
