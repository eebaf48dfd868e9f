"""Names of workers: whatever a pool or a machine is called, they are read as they were written."""

from __future__ import annotations

import pytest
from celery.utils.nodenames import host_format, nodesplit
from hypothesis import given
from hypothesis import strategies as st

from jobs import worker_names
from jobs.worker_names import ProcessName, WorkerName

tokens = st.text("0123456789abcdef", min_size=12, max_size=12)
devices = st.one_of(
    st.sampled_from(["", "none", "cpu"]),
    st.lists(st.integers(0, 63)).map(lambda numbers: f"cuda:{','.join(map(str, numbers))}"),
    st.text(max_size=60),
)
named = st.builds(
    WorkerName.of,
    pool=st.from_regex(r"[a-z0-9_-]{1,40}", fullmatch=True) | st.text(max_size=60),
    device=devices,
    pid=st.integers(1, 2**22),
    token=tokens,
    machine=st.from_regex(r"[a-zA-Z0-9.-]{1,64}", fullmatch=True) | st.text(max_size=70),
)


@pytest.mark.parametrize(
    ("pool", "device", "machine", "name"),
    [
        ("cpu", "cpu", "node7", "cpu-7-5f0c@node7"),
        ("plan", "", "node7", "plan-7-5f0c@node7"),
        ("gpu", "cuda:0", "node7", "gpu.cuda0-7-5f0c@node7"),
        (
            "gpu",
            "cuda:0,1",
            "node7.r2.example.org",
            "gpu.cuda0_1-7-5f0c@node7.r2.example.org",
        ),
        ("train", "cpu", "node-7", "train.cpu-7-5f0c@node-7"),
        ("gpu-12-ab", "cpu", "node7", "gpu-12-ab.cpu-7-5f0c@node7"),
        ("big_gpu", "cuda:0,1,2,3,4,5,6,7", "n", "big_gpu.cuda0_1_2_3_4_5_6_7-7-5f0c@n"),
        ("gpu", "cuda:GPU-8932f937-d72c-4106-c12f", "n", "gpu.cudaGPU-8932f937-7-5f0c@n"),
        ("gpu", f"cuda:{','.join(['GPU-8932f937-d72c'] * 8)}", "n", "gpu.8xcuda-7-5f0c@n"),
        ("große.karten", "cpu", "büro:7@%h", "gro_e_karten.cpu-7-5f0c@b_ro_7_h"),
        ("", "", "", "unknown-7-5f0c@unknown"),
        ("gpu", ",", "n", "gpu-7-5f0c@n"),
        ("gpu", "cuda,1:,2", "n", "gpu.cuda1_2-7-5f0c@n"),
    ],
)
def test_a_worker_is_named_by_pool_device_process_and_machine(
    pool: str, device: str, machine: str, name: str
) -> None:
    written = WorkerName.of(pool=pool, device=device, pid=7, token="5f0c", machine=machine)
    assert str(written) == name
    assert WorkerName.read(name) == written


@pytest.mark.parametrize(
    ("name", "pool", "machine"),
    [
        ("cpu-4711-5f0c4ea1b2c3@node7", "cpu", "node7"),
        ("host-4711-5f0c4ea1b2c3@node7.example.org", "host", "node7.example.org"),
        ("plan-4711-5f0c4ea1b2c3@node-7", "plan", "node-7"),
        ("gpu-80-large-4711-5f0c4ea1b2c3@node7", "gpu-80-large", "node7"),
    ],
)
def test_the_names_of_earlier_versions_are_read(name: str, pool: str, machine: str) -> None:
    read = WorkerName.read(name)
    assert read is not None
    assert (read.pool, read.devices, read.pid, read.machine) == (pool, "", 4711, machine)
    assert str(read) == name
    assert worker_names.holder(f"{name}:4712") == name


@pytest.mark.parametrize("text", ["", "cpu", "cpu-7@node7", "node7:5f0c", "celery@node7", "-7-a@n"])
def test_what_is_no_name_of_a_worker_is_not_read(text: str) -> None:
    assert WorkerName.read(text) is None


@given(named)
def test_a_name_is_read_as_it_was_written(name: WorkerName) -> None:
    assert WorkerName.read(str(name)) == name


@given(named)
def test_celery_takes_a_name_as_it_is(name: WorkerName) -> None:
    text = str(name)
    assert nodesplit(text)[1] == name.machine
    assert host_format(text) == text  # no part of it stands for something else
    assert text.isprintable()


@given(named, named)
def test_two_names_are_two_texts(one: WorkerName, other: WorkerName) -> None:
    assert (str(one) == str(other)) == (one == other)


@given(named, st.integers(1, 2**22))
def test_a_process_belongs_to_its_worker(name: WorkerName, pid: int) -> None:
    owner = ProcessName(str(name), pid)
    assert ProcessName.read(str(owner)) == owner
    assert worker_names.holder(str(owner)) == str(name)


@pytest.mark.parametrize("text", ["", "7", "cpu-7-5f0c@node7", "node7:", "node7:seven"])
def test_what_names_no_process_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="names no process"):
        ProcessName.read(text)
