"""Which variables children get: what they compute with, and no secret by accident."""

from __future__ import annotations

import pytest

from jobs import environment

GIVEN = {
    "PATH": "/bin",
    "LC_ALL": "C.UTF-8",
    "PYTHONPATH": "/src",
    "CUDA_VISIBLE_DEVICES": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "OMP_NUM_THREADS": "1",
    "NCCL_DEBUG": "INFO",
    "HF_HUB_OFFLINE": "1",
    "HF_TOKEN": "hush",
    "AWS_SECRET_ACCESS_KEY": "hush",
    "NIGHTSHIFT_DATABASE_URL": "hush",
    "REDIS_URL": "hush",
    "GITHUB_TOKEN": "hush",
}


@pytest.mark.parametrize(
    ("groups", "names"),
    [
        ((), set()),
        ((environment.SYSTEM,), {"PATH", "LC_ALL"}),
        ((environment.PYTHON,), {"PYTHONPATH"}),
        (
            (environment.COMPUTE,),
            {
                *("CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "OMP_NUM_THREADS"),
                *("NCCL_DEBUG", "HF_HUB_OFFLINE"),
            },
        ),
        ((environment.HUB,), {"HF_HUB_OFFLINE", "HF_TOKEN"}),
        ((environment.OBJECTS,), {"AWS_SECRET_ACCESS_KEY"}),
        ((environment.NETWORK,), set()),
    ],
)
def test_a_group_chooses_its_own_variables(
    groups: tuple[tuple[str, ...], ...], names: set[str]
) -> None:
    assert set(environment.chosen(GIVEN, *groups)) == names
