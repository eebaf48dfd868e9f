"""A pipeline over images that rows name, in a whole installation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.ledger import controls
from jobs.row_codes import RowCode
from jobs.states import JobState
from tests.support.installation import PROJECT, Installation
from tests.support.installations import NewInstallation
from tests.support.tiny_pipelines import an_image, image_classifier

IMAGES = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def installation(
    new_installation: NewInstallation, tmp_path_factory: pytest.TempPathFactory, folder: Path
) -> Iterator[Installation]:
    model = image_classifier(tmp_path_factory.mktemp("models") / "images")
    made = new_installation(model, worker_threads=1, allowed_inputs=[folder.as_uri()])
    with made.running("control", "planner", "pool") as installation:
        yield installation


def ended(installation: Installation, job_id: str) -> None:
    view = installation.wait(job_id, seconds=240)
    assert view.job.state is JobState.SUCCEEDED, f"{view.job.error_message} {installation.logs()}"


def test_a_file_that_was_missing_is_done_by_a_retry(
    installation: Installation, folder: Path
) -> None:
    images = [an_image(folder / f"{seed}.png", seed=seed) for seed in range(IMAGES)]
    missing = folder / "later.png"
    uris = [image.as_uri() for image in (*images, missing)]
    job_id = installation.submit(
        "\n".join(uris).encode(),
        filename="images.txt",
        kind="pipeline",
        model=str(installation.model),
        pipeline={"parameters": {"top_k": 1}},
        chunk_rows=3,
    )
    ended(installation, job_id)
    found = installation.results(job_id)
    assert [record["error_code"] for record in found] == [None] * IMAGES + [RowCode.FILE_UNREADABLE]
    assert str(missing) in found[-1]["error_message"]
    an_image(missing, seed=99)
    with installation.sessions.begin() as session:
        controls.retry(session, job_id, project_id=PROJECT)
    ended(installation, job_id)
    again = installation.results(job_id)
    assert again[:-1] == found[:-1]
    assert {len(json.loads(record["output"])) for record in again} == {1}
    assert installation.verify(job_id).problems == ()
