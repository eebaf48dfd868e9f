"""An alias goes back to what it pointed to before, once for each call, and its history is kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs.decisions.alias_history import AliasChange
from jobs.errors import Conflict, NotFound
from jobs.ledger import registry, rollbacks
from jobs.ledger.promotions import PromotionRecord, record_promotion
from jobs.ledger.rollbacks import Rollback
from jobs.queries import registry as queries
from jobs.queries.paging import Order
from tests.jobs.ledger.building import OTHER, PROJECT
from tests.jobs.registry.conftest import Registry


def served(made: Registry, name: str, *versions: int) -> None:
    """Versions of a new name, and an alias that pointed to these one after the other."""
    for _ in range(max(versions)):
        made.register(name)
    for version in versions:
        made.point(name, "champion", version)


def roll_back(made: Registry, name: str, expected: int | None = None) -> Rollback:
    with made.ledger.sessions.begin() as session:
        return rollbacks.roll_back(
            session, project_id=PROJECT, name=name, alias="champion", expected=expected
        )


def test_several_rollbacks_go_further_and_further_back(made: Registry) -> None:
    served(made, "back", 1, 2, 3)
    assert roll_back(made, "back") == Rollback(2, 3)
    assert made.lookup("back@champion").version == 2
    assert roll_back(made, "back") == Rollback(1, 2)
    with pytest.raises(Conflict, match="pointed to no other version before") as caught:
        roll_back(made, "back")
    assert caught.value.code == "nothing_to_roll_back_to"
    assert made.lookup("back@champion").version == 1


def test_a_deleted_version_is_passed_over_and_named(made: Registry) -> None:
    served(made, "gone", 1, 2, 3)
    made.delete("gone", 2)
    assert roll_back(made, "gone") == Rollback(1, 3, skipped=(2,))


def test_where_all_are_deleted_the_refusal_names_them(made: Registry) -> None:
    served(made, "lost", 1, 2, 3)
    made.delete("lost", 1)
    made.delete("lost", 2)
    with pytest.raises(Conflict, match="before is deleted: lost@2, lost@1"):
        roll_back(made, "lost")
    assert made.lookup("lost@champion").version == 3


def test_an_alias_that_was_forgotten_comes_back(made: Registry) -> None:
    served(made, "forgotten", 1, 2)
    with made.ledger.sessions.begin() as session:
        registry.remove_alias(session, project_id=PROJECT, name="forgotten", alias="champion")
    assert roll_back(made, "forgotten") == Rollback(2, None)


def test_a_repeated_call_is_one_rollback_and_a_stale_one_is_refused(made: Registry) -> None:
    served(made, "twice", 1, 2, 3)
    assert roll_back(made, "twice", 3) == Rollback(2, 3)
    assert roll_back(made, "twice", 3) == Rollback(2, 3)
    assert made.lookup("twice@champion").version == 2
    made.point("twice", "champion", 1)
    with pytest.raises(Conflict, match="points to version 1, not to version 3") as caught:
        roll_back(made, "twice", 3)
    assert caught.value.code == "alias_moved"


def test_of_concurrent_rollbacks_each_goes_one_back(made: Registry) -> None:
    served(made, "crowd", 1, 2, 3, 4)
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: roll_back(made, "crowd").version, range(3)))
    assert sorted(done) == [1, 2, 3]


def test_an_alias_that_never_was_is_not_found(made: Registry) -> None:
    made.register("never")
    with pytest.raises(NotFound, match="has no alias 'champion'"):
        roll_back(made, "never")
    with (
        made.ledger.sessions.begin() as session,
        pytest.raises(NotFound),
    ):
        rollbacks.roll_back(session, project_id=OTHER, name="never", alias="champion")


def test_the_history_tells_who_served_from_when_until_when(made: Registry) -> None:
    served(made, "told", 1, 1, 2)
    job_id = made.ledger.accept()
    third = made.register("told", job_id=job_id)
    with made.ledger.sessions.begin() as session:
        assert record_promotion(
            session,
            PromotionRecord(
                alias="champion",
                version=third,
                value=0.9,
                incumbent=2,
                incumbent_value=0.8,
                metric="accuracy",
                margin=0.0,
                promoted=True,
                reason="because",
            ),
            project_id=PROJECT,
            name="told",
            job_id=job_id,
        )
    roll_back(made, "told")
    with made.ledger.sessions.begin() as session:
        registry.remove_alias(session, project_id=PROJECT, name="told", alias="champion")
        found, more = queries.history(
            session, "told", "champion", project_id=PROJECT, limit=10, order=Order.ASC
        )
        moves = [service.move for service in found]
        assert not more
        assert [(move.how, move.previous, move.version, move.job_id) for move in moves] == [
            (AliasChange.SET, None, 1, None),
            (AliasChange.SET, 1, 2, None),
            (AliasChange.PROMOTION, 2, 3, job_id),
            (AliasChange.ROLLBACK, 3, 2, None),
            (AliasChange.REMOVAL, 2, None, None),
        ]
        assert [service.until for service in found] == [*[move.at for move in moves[1:]], None]
        page, more = queries.history(session, "told", "champion", project_id=PROJECT, limit=2)
        assert more
        assert [service.until for service in page] == [None, page[0].move.at]
