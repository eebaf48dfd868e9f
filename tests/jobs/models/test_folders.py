"""Hub models and local folders are located if, and only if, the allow-list covers them."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.errors import ModelFailure
from jobs.models import folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    return folder


def refusal(reference: str, *, allowed: list[str]) -> str:
    with pytest.raises(ModelFailure) as caught:
        folders.locate(reference, allowed=allowed)
    return caught.value.code


def test_a_folder_under_an_allowed_prefix_is_located(folder: Path) -> None:
    assert folders.locate(str(folder), allowed=[str(folder.parent)]) == folder.resolve()


def test_a_sibling_whose_name_begins_like_the_prefix_is_refused(folder: Path) -> None:
    sibling = folder.parent / "model-2"
    sibling.mkdir()
    assert refusal(str(sibling), allowed=[str(folder)]) == "model_refused"


def test_dots_do_not_climb_out_of_the_prefix(folder: Path) -> None:
    inside = folder.parent / "inside"
    inside.mkdir()
    assert refusal(f"{inside}/../model", allowed=[str(inside)]) == "model_refused"


def test_a_link_out_of_the_prefix_is_refused(folder: Path) -> None:
    inside = folder.parent / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(folder)
    assert refusal(str(inside / "link"), allowed=[str(inside)]) == "model_refused"


def test_an_allowed_prefix_may_itself_be_a_link(folder: Path) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert folders.locate(str(link), allowed=[str(link)]) == folder.resolve()


def test_a_refused_folder_is_refused_whether_or_not_it_exists(folder: Path) -> None:
    assert refusal("/nowhere/at/all", allowed=[str(folder)]) == "model_refused"


def test_an_allowed_folder_that_does_not_exist_is_missing(tmp_path: Path) -> None:
    assert refusal(str(tmp_path / "none"), allowed=["/"]) == "model_missing"


def test_a_relative_folder_is_refused() -> None:
    assert refusal("models/mine", allowed=["/"]) == "model_refused"


@pytest.mark.parametrize(
    "allowed", [[], ["/"], ["hf:other/"], ["hf:or"], ["hf:org/na"], ["org/"]], ids=str
)
def test_a_hub_model_off_the_allow_list_is_refused(allowed: list[str]) -> None:
    assert refusal("hf:org/name", allowed=allowed) == "model_refused"


@pytest.mark.parametrize("reference", ["hf:", "hf:name", "hf:a/b/c", "hf:a/b@", "hf:a b/c"])
def test_a_misspelt_hub_reference_is_missing(reference: str) -> None:
    assert refusal(reference, allowed=["hf:"]) == "model_missing"
