"""Names of processes, which two containers with the same host name and numbers must not share."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping

from jobs.worker_names import WorkerName
from workers import process_names

NAMES = """
import subprocess, sys
from workers import process_names
{begin}
print(process_names.owner(7), process_names.node("pool"))
"""


def names(variables: Mapping[str, str], *, begin: bool = True) -> tuple[str, str]:
    """What a process calls process 7 of its own worker, and itself."""
    code = NAMES.format(begin="process_names.begin()" if begin else "")
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    owner, node = ran.stdout.split()
    return owner, node


def test_two_workers_of_one_host_name_own_nothing_of_each_other() -> None:
    (first, _), (second, _) = names({}), names({})
    assert first != second
    assert first.startswith(f"{platform.node()}:")
    assert first.endswith(":7")


def test_a_worker_does_not_take_over_the_token_that_it_inherits() -> None:
    owner, _ = names({process_names.TOKEN: "inherited"})
    assert "inherited" not in owner


def test_a_pool_process_has_the_token_of_its_worker() -> None:
    owner, node = names({process_names.TOKEN: "mine"}, begin=False)
    assert owner == f"{platform.node()}:mine:7"
    name = WorkerName.read(node)
    assert name is not None
    assert (name.pool, name.token, name.machine) == ("pool", "mine", platform.node())


def test_a_pool_process_owns_under_the_name_of_its_worker() -> None:
    worker = {process_names.TOKEN: "mine", process_names.WORKER: "cpu-7-mine@host"}
    assert names(worker, begin=False)[0] == "cpu-7-mine@host:7"
    assert names(worker | {process_names.TOKEN: "another"}, begin=False)[0].endswith(":another:7")


def test_a_worker_is_named_by_its_pool_device_process_and_machine() -> None:
    name = WorkerName.read(process_names.node("gpu", device="cuda:0,1"))
    assert name is not None
    assert (name.pool, name.devices, name.pid) == ("gpu", "cuda0_1", os.getpid())
    assert name.token == process_names.token()
    assert name.machine == platform.node()


def test_a_text_that_only_has_the_token_in_it_is_no_worker() -> None:
    worker = {process_names.TOKEN: "mine", process_names.WORKER: "cpu-7-mineral@host"}
    assert names(worker, begin=False)[0] == f"{platform.node()}:mine:7"
