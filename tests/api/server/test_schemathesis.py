"""Generated requests meet what the description of the API promises, with every check there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.server.installation import Tenant

CONFIG = Path(__file__).with_name("schemathesis.toml")
PROGRAM = Path(sys.executable).with_name("schemathesis")


def run(tenant: Tenant, *arguments: str) -> None:
    """Fails with the report where a check finds something."""
    found = subprocess.run(
        [
            *(PROGRAM, "--config-file", CONFIG, "run", f"{tenant.installation.url}/openapi.json"),
            *("--exclude-path-regex", "/v1/keys/{key_id}/"),  # would end the key of the run itself
            *("--header", f"Authorization: Bearer {tenant.key}", "--checks", "all"),
            *("--seed", "1", "--generation-database", "none", "--no-color", *arguments),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-20_000:] + found.stderr[-2_000:]


@pytest.mark.slow
def test_a_few_requests_of_every_operation_find_nothing(tenant: Tenant) -> None:
    run(tenant, "--phases", "fuzzing", "--max-examples", "3")


@pytest.mark.long
def test_many_requests_and_sequences_of_them_find_nothing(tenant: Tenant) -> None:
    run(tenant, "--max-examples", "30")
