from __future__ import annotations

import os
from unittest.mock import patch

import pytest
import torch

from jobs.kinds import ClassifyOptions
from jobs.settings import Settings
from workers.inference import model_loader


@pytest.mark.parametrize(
    ("dtype", "expected"), [("float32", torch.float32), ("float16", torch.half)]
)
def test_a_dtype_in_the_options_is_used_on_any_device(dtype: str, expected: torch.dtype) -> None:
    options = ClassifyOptions.model_validate({"dtype": dtype})
    assert model_loader.dtype(options, device=torch.device("cpu")) == expected


def test_the_cpu_computes_in_float32_by_default() -> None:
    assert model_loader.dtype(ClassifyOptions(), device=torch.device("cpu")) == torch.float32


def test_threads_are_those_of_the_settings() -> None:
    model_loader.use_threads(Settings(worker_threads=3))
    assert torch.get_num_threads() == 3


def test_threads_that_the_process_has_are_not_set_again() -> None:
    model_loader.use_threads(Settings(worker_threads=3))
    with patch.object(torch, "set_num_threads") as setting:
        model_loader.use_threads(Settings(worker_threads=3))
    setting.assert_not_called()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity")
def test_the_cores_are_divided_among_the_processes_and_each_has_one_at_least() -> None:
    cores = len(os.sched_getaffinity(0))
    model_loader.use_threads(Settings(worker_processes=1))
    assert torch.get_num_threads() == cores
    model_loader.use_threads(Settings(worker_processes=cores * 4))
    assert torch.get_num_threads() == 1
