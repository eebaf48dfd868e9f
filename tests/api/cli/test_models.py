"""``nightshift models``: what it prints and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.api.cli.conftest import Run
from tests.api.server.installation import Tenant
from tests.api.server.test_models import FILES, Trained


@pytest.fixture
def trained(tenant: Tenant, tmp_path: Path) -> Trained:
    trained = Trained(tenant, tmp_path / "model")
    for _ in range(3):
        trained.register("news")
    trained.register("mail", kind="adapter", base="news@1")
    return trained


@pytest.mark.usefixtures("trained")
def test_models_are_listed_by_name_with_their_aliases(run: Run) -> None:
    assert run("models", "alias", "news@2", "champion").out == "news@champion is news@2\n"
    table = run("models", "list").out.splitlines()
    assert table[0].split() == ["MODEL", "TASK", "KIND", "SIZE", "ALIASES", "CREATED"]
    assert [line.split()[0] for line in table[1:]] == ["mail@1", "news@3"]
    assert "champion=2" in table[2]
    assert [model["id"] for model in json.loads(run("models", "list", "--json").out)] == [
        "mail@1",
        "news@3",
        "news@2",
        "news@1",
    ]


@pytest.mark.usefixtures("trained")
def test_a_model_is_shown_in_full(run: Run) -> None:
    shown = run("models", "show", "news@2").out
    assert "model     news@2\n" in shown
    assert "base      hf:org/name\n" in shown
    assert "train   rows 8, sha256 ab\n" in shown
    assert "test      accuracy 0.9\n" in shown
    assert json.loads(run("models", "show", "news", "--json").out)["id"] == "news@3"


@pytest.mark.usefixtures("trained")
def test_versions_are_listed_newest_first_with_deleted_ones(run: Run) -> None:
    assert run("models", "delete", "news@2").out == "news@2 is deleted\n"
    table = run("models", "versions", "news").out.splitlines()
    assert [line.split()[0] for line in table[1:]] == ["3", "2", "1"]
    assert "deleted" in table[2]
    assert "accuracy 0.9" in table[1]
    limited = run("models", "versions", "news", "--limit", "1", "--json")
    assert [version["version"] for version in json.loads(limited.out)] == [3]


def test_promotions_are_listed_with_both_numbers(run: Run, trained: Trained) -> None:
    run("models", "alias", "news@1", "champion")
    trained.decide("news", 2, value=0.75, promoted=False)
    trained.decide("news", 3, value=0.95, promoted=True)
    table = [line.split() for line in run("models", "promotions", "news").out.splitlines()]
    assert table[1][2:] == ["champion", "yes", "accuracy", "3", "0.95", "1", "0.8", "0.01", "-"]
    assert table[2][2:] == ["champion", "no", "accuracy", "2", "0.75", "1", "0.8", "0.01", "-"]
    listed = json.loads(run("models", "promotions", "news", "--json").out)
    assert [decision["promoted"] for decision in listed] == [True, False]


@pytest.mark.usefixtures("trained")
def test_an_alias_goes_back_and_the_history_tells_who_served_when(run: Run) -> None:
    for version in (1, 2, 3):
        run("models", "alias", f"news@{version}", "champion")
    run("models", "delete", "news@2")
    back = run("models", "rollback", "news", "champion")
    assert back.out == (
        "news@champion is news@1 again; it was news@3, past news@2, which is deleted\n"
    )
    table = [line.split() for line in run("models", "history", "news", "champion").out.splitlines()]
    assert table[0] == ["SINCE", "UNTIL", "VERSION", "BY", "JOB"]
    told = json.loads(run("models", "history", "news", "champion", "--json").out)
    assert [(one["version"], one["previous"], one["how"]) for one in told] == [
        (1, 3, "rollback"),
        (3, 2, "set"),
        (2, 1, "set"),
        (1, None, "set"),
    ]


@pytest.mark.usefixtures("trained")
def test_a_model_is_downloaded_into_a_new_folder(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("models", "download", "news@1", "--out", str(out)).out == f"news@1 is in {out}\n"
    assert (out / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    again = run("models", "download", "news@1", "--out", str(out))
    assert (again.code, again.out) == (2, "")
    assert "does not exist yet" in again.err


@pytest.mark.usefixtures("trained")
def test_of_an_adapter_the_base_is_named(run: Run, tmp_path: Path) -> None:
    ran = run("models", "download", "mail", "--out", str(tmp_path / "out"))
    assert "its base is news@1" in ran.err


@pytest.mark.usefixtures("trained")
def test_an_alias_is_forgotten(run: Run) -> None:
    run("models", "alias", "news@1", "champion")
    forgotten = run("models", "alias", "news", "champion", "--remove")
    assert forgotten.out == "news@champion is forgotten\n"
    assert run("models", "show", "news@champion").code == 2


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("delete", "news"), "this needs one version, such as news@3, not 'news'"),
        (("delete", "news@champion"), "this needs one version"),
        (("delete", "news@9"), "the model 'news' has no version 9"),
        (("delete", "news@1"), "mail@1 is an adapter on it"),
        (("alias", "news", "champion"), "this needs one version"),
        (("rollback", "news", "champion"), "the model 'news' has no alias 'champion'"),
        (("rollback", "unheard-of", "champion"), "no model 'unheard-of'"),
        (("history", "news", "champion"), "the model 'news' has no alias 'champion'"),
        (("show", "unheard-of"), "no model 'unheard-of' in this project's registry"),
    ],
)
def test_a_command_that_cannot_be_done_says_why_in_a_line(
    run: Run, arguments: tuple[str, ...], message: str
) -> None:
    ran = run("models", *arguments)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert message in ran.err
