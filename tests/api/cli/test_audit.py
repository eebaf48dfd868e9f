"""`nightshift audit`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.api.cli.conftest import Run
from tests.api.server.installation import Tenant


def test_a_trail_is_listed_and_written_to_a_file(run: Run, tenant: Tenant) -> None:
    file_id = tenant.upload()
    assert run("files", "delete", file_id).code == 0
    listed = json.loads(run("audit", "--object", file_id, "--json").out)
    assert [each["method"] for each in listed] == ["DELETE", "POST"]
    assert "/v1/files" in run("audit", "--since", "1h").out
    written = run("audit", "--out", "trail.jsonl")
    assert written.out == "2 entries are in trail.jsonl\n", written.err
    lines = Path("trail.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(each) for each in lines] == listed
    assert run("audit", "--out", "trail.jsonl").code == 2
