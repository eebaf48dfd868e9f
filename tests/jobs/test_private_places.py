"""Places of the installation are no input, however their path is spelled (P9, P10)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import private_places
from jobs.corpora import sources
from jobs.errors import CorpusRefused, ModelFailure
from jobs.models import folders
from jobs.settings import Settings

EVERYTHING = ["file:///"]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder with a corpus and a model of another project."""
    folder = tmp_path / "state"
    (folder / "artefacts" / "model").mkdir(parents=True)
    (folder / "artefacts" / "model" / "config.json").write_text("{}")
    (folder / "corpus.csv").write_text("text\nsecret\n")
    return folder


def linked(state: Path, name: str) -> str:
    link = state.parent / "link"
    link.symlink_to(state)
    return f"{link}/{name}"


def linked_twice(state: Path, name: str) -> str:
    (state.parent / "second").symlink_to(linked(state, ""))
    return f"{state.parent}/second/{name}"


def mounted(state: Path, name: str) -> str:
    place = state.parent / "mounted"
    place.mkdir()
    command = ["mount", "--bind", str(state), str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    return f"{place}/{name}"


SPELLINGS: dict[str, Callable[[Path, str], str]] = {
    "as it is": lambda state, name: f"{state}/{name}",
    "with slashes": lambda state, name: f"//{state}///{name}",
    "by a link": linked,
    "by links": linked_twice,
    "by a bind mount": mounted,
    "by /proc": lambda state, name: f"/proc/self/root{state}/{name}",
    "by an open folder": lambda state, name: f"/proc/self/fd/{os.open(state, os.O_RDONLY)}/{name}",
}


@pytest.fixture(params=SPELLINGS)
def spelled(request: pytest.FixtureRequest, state: Path) -> Callable[[str], str]:
    """The path of something in the state folder, spelled in one way."""
    request.addfinalizer(  # noqa: PT021
        lambda: subprocess.run(
            ["umount", str(state.parent / "mounted")], capture_output=True, check=False
        )
    )
    return lambda name: SPELLINGS[request.param](state, name)


def test_a_corpus_in_the_state_folder_is_refused(
    state: Path, spelled: Callable[[str], str]
) -> None:
    private = private_places.of(Settings(private_folders=[str(state)]))
    path = spelled("corpus.csv")
    with pytest.raises(CorpusRefused, match="files of this installation"):
        sources.from_uri(f"file://{path}", allowed=EVERYTHING, private=private)


def test_a_model_in_the_state_folder_is_refused(state: Path, spelled: Callable[[str], str]) -> None:
    private = private_places.of(Settings(private_folders=[str(state)]))
    path = spelled("artefacts/model")
    for reference in (path, f"file://{path}"):
        if reference.startswith("file:////"):
            continue  # two slashes at its beginning are a host
        with pytest.raises(ModelFailure, match=r"files of this installation|allow-list") as caught:
            folders.locate(reference, allowed=["/"], private=private)
        assert caught.value.code == "model_refused"


def test_percent_signs_and_links_that_come_later_are_refused(state: Path) -> None:
    private = private_places.of(Settings(private_folders=[str(state)]))
    encoded = "".join(f"%{ord(letter):02x}" for letter in "corpus.csv")
    with pytest.raises(CorpusRefused, match="files of this installation"):
        sources.from_uri(f"file://{state}/{encoded}", allowed=EVERYTHING, private=private)
    path = state.parent / "a.csv"
    path.write_text("text\nmine\n")
    source = sources.from_uri(path.as_uri(), allowed=EVERYTHING, private=private)
    path.unlink()
    path.symlink_to(state / "corpus.csv")
    with pytest.raises(CorpusRefused, match="files of this installation"):
        source.open()


def test_a_model_with_a_link_into_the_state_folder_is_refused(state: Path) -> None:
    mine = state.parent / "mine"
    mine.mkdir()
    (mine / "config.json").symlink_to(state / "artefacts" / "model" / "config.json")
    private = private_places.of(Settings(private_folders=[str(state)]))
    with pytest.raises(ModelFailure, match="files of this installation"):
        folders.locate(str(mine), allowed=["/"], private=private)


def test_what_lies_beside_the_state_folder_is_an_input(state: Path) -> None:
    private = private_places.of(Settings(private_folders=[str(state)]))
    beside = state.with_name("state-2")
    beside.mkdir()
    (beside / "a.csv").write_text("text\nmine\n")
    uri = (beside / "a.csv").as_uri()
    assert sources.from_uri(uri, allowed=EVERYTHING, private=private).name == "a.csv"
    assert folders.locate(str(beside), allowed=["/"], private=private) == beside.resolve()


def test_the_object_store_and_the_folders_of_the_settings_are_private(tmp_path: Path) -> None:
    settings = Settings(
        object_store_url=(tmp_path / "objects").as_uri(),
        artefact_cache=str(tmp_path / "artefacts"),
        calibration_folder=str(tmp_path / "calibration"),
        host_folder=str(tmp_path / "work"),
    )
    private = private_places.of(settings)
    for name in ("objects", "artefacts", "calibration", "work"):
        assert private_places.hold(private, tmp_path / name / "file")
    assert not private_places.hold(private, tmp_path / "file")


def test_objects_of_the_own_store_are_no_input() -> None:
    private = private_places.of(Settings(object_store_url="s3://bucket/nightshift"))
    for uri, is_own in {
        "s3://bucket/nightshift/files/file-1": True,
        "s3://bucket/nightshift-2/a.csv": False,
        "s3://other/nightshift/a.csv": False,
    }.items():
        parts = tuple(uri.removeprefix("s3://").split("/"))
        assert private_places.hold_object(private, "s3", parts) is is_own
    with pytest.raises(CorpusRefused, match="files of this installation"):
        sources.from_uri("s3://bucket/nightshift/files/file-1", allowed=["s3://"], private=private)
