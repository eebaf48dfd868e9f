"""How a group ended, as exit codes and JSON tell it apart."""

from __future__ import annotations

from typing import Any

import pytest

from api.cli import group_outcomes
from api.cli.failures import Failure
from api.cli.outcomes import Outcome

RETRY = "; retry what failed with `nightshift jobs retry group_1`"


def member(state: str = "succeeded", *, total: int | None = 8, **facts: Any) -> dict[str, Any]:
    return {
        "member": "label",
        "state": state,
        "error": None,
        "rows": {"done": 0, "total": total},
        "registered": None,
        "promotion": None,
        **facts,
    }


def trained(number: int = 4, *, promoted: bool | None = None, name: str = "news") -> dict[str, Any]:
    """A member that trained a version, and whether that was promoted; none: it was not asked."""
    promotion = {"alias": "champion", "promoted": promoted, "reason": f"{number} is not better"}
    return member(
        member=str(number),
        rows=None,
        registered=f"{name}@{number}",
        promotion=None if promoted is None else promotion,
    )


def group(*members: dict[str, Any], state: str = "succeeded") -> dict[str, Any]:
    return {"id": "group_1", "state": state, "members": list(members)}


EMPTY = member("failed", error={"code": "corpus_empty", "message": "no rows"})
FAILED = member("failed", error={"code": "model_missing", "message": "no model"})
BEHIND = member("failed", error={"code": "dependency_failed", "message": "it needs another"})


@pytest.mark.parametrize(
    ("ended", "outcome", "code"),
    [
        (group(member(), trained()), Outcome.SUCCEEDED, 0),
        (group(trained(promoted=True), member()), Outcome.SUCCEEDED, 0),
        (group(trained(promoted=False), member()), Outcome.NOT_PROMOTED, 4),
        (group(trained(promoted=False), member(total=0)), Outcome.NOT_PROMOTED, 4),
        (group(trained(4, promoted=True), trained(5, promoted=False)), Outcome.SUCCEEDED, 0),
        (group(trained(4, promoted=False), trained(5, promoted=False)), Outcome.NOT_PROMOTED, 4),
        (
            group(trained(promoted=True), trained(promoted=False, name="other")),
            Outcome.NOT_PROMOTED,
            4,
        ),
        (group(member(), member(total=0)), Outcome.EMPTY, 5),
        (group(member(), EMPTY, state="failed"), Outcome.EMPTY, 5),
        (group(EMPTY, BEHIND, state="failed"), Outcome.EMPTY, 5),
        (group(EMPTY, FAILED, state="failed"), Outcome.FAILED, 1),
        (group(member(), BEHIND, state="failed"), Outcome.FAILED, 1),
        (group(trained(promoted=False), FAILED, state="failed"), Outcome.FAILED, 1),
        (group(member(), member("cancelled"), state="cancelled"), Outcome.CANCELLED, 1),
        (group(member("expired"), state="expired"), Outcome.EXPIRED, 1),
        (group(member(), member("running"), state="running"), None, 1),
    ],
)
def test_each_ending_has_its_word_and_its_exit_code(
    ended: dict[str, Any], outcome: Outcome | None, code: int
) -> None:
    assert group_outcomes.told(ended)["outcome"] == outcome
    if code == 0:
        group_outcomes.check(ended)
        return
    with pytest.raises(Failure) as caught:
        group_outcomes.check(ended)
    assert caught.value.code == code


def test_a_member_has_its_outcome_too() -> None:
    told = group_outcomes.told(group(trained(promoted=False), member(total=0)))
    assert [each["outcome"] for each in told["members"]] == ["not_promoted", "empty"]


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (group(trained(promoted=False)), "news@4 was not promoted: 4 is not better"),
        (
            group(trained(4, promoted=False), trained(5, promoted=False)),
            "2 versions were not promoted; the last of them: news@5 was not promoted: 5 is",
        ),
        (group(member(total=0)), "group_1: label had no rows"),
        (group(*[FAILED] * 5, state="failed"), "label failed and 2 more" + RETRY),
        (group(member("cancelled"), state="cancelled"), "group_1 was cancelled: label cancelled"),
    ],
)
def test_the_line_says_what_came_out(ended: dict[str, Any], said: str) -> None:
    with pytest.raises(Failure) as caught:
        group_outcomes.check(ended)
    assert said in caught.value.message
