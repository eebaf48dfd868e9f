"""The parts of the example that stand alone: rows, commands, its folder, its receiver."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest

from api.cli import docstring_corpus
from api.cli.failures import Failure
from api.cli.nightly import arrivals, installation, nights, receiver
from api.cli.nightly.arrivals import Row
from jobs.webhooks import signatures


def test_topics_can_share_the_rows_evenly() -> None:
    assert nights.ROWS % len(docstring_corpus.TOPICS) == 0


def test_a_flipped_row_has_the_label_of_another_topic() -> None:
    rows = [Row(topic, topic) for topic in docstring_corpus.TOPICS]
    flipped = arrivals.flipped(rows)
    assert [row.text for row in flipped] == [row.text for row in rows]
    assert not any(row.label == other.label for row, other in zip(rows, flipped, strict=True))
    assert {row.label for row in flipped} == set(docstring_corpus.TOPICS)


def test_nights_share_no_object() -> None:
    objects = [name for night in nights.NIGHTS for name in night.objects]
    assert len(set(objects)) == len(objects) == 12
    assert objects[0] == "day=2026-12-01/part-0.jsonl"


def test_a_long_command_is_written_on_several_lines_and_quoted() -> None:
    options = (word for number in range(20) for word in (f"--option-{number}", "value"))
    words = ["schedules", "create", *options, "a b*"]
    lines = installation.written(words).splitlines()
    assert len(lines) > 2
    assert all(len(line) <= installation.WIDTH + 3 for line in lines)
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert not any(line.strip().startswith("value") for line in lines)
    assert lines[-1].endswith("'a b*'")


def test_a_folder_that_is_of_no_earlier_run_stays_as_it_is(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    with pytest.raises(Failure, match="is not empty"):
        installation.empty(tmp_path, stack=None)
    assert precious.read_text() == "mine"


def test_a_receiver_takes_a_signed_event_once_and_no_other() -> None:
    body = json.dumps({"type": "model.promoted"}).encode()
    with receiver.listening() as listening:
        secrets = (listening.secret, signatures.new_secret())
        right, wrong = (
            signatures.headers([secret], event_id="evt_1", at=datetime.now(UTC), body=body)
            for secret in secrets
        )
        statuses = [
            httpx.post(listening.url, content=body, headers=headers).status_code
            for headers in (wrong, right, right)
        ]
        assert statuses == [HTTPStatus.UNAUTHORIZED, HTTPStatus.NO_CONTENT, HTTPStatus.NO_CONTENT]
        assert listening.events == [{"type": "model.promoted"}]
