"""Promotions: a decision moves the alias only if the incumbent is still the one it was about."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from jobs.ledger.promotions import PromotionRecord, record_promotion
from jobs.queries import registry as queries
from jobs.tables import Promotion
from tests.jobs.ledger.building import PROJECT
from tests.jobs.registry.conftest import Registry


class Contest:
    """A name with an incumbent, and decisions about it."""

    def __init__(self, made: Registry, name: str) -> None:
        self._made, self._name = made, name
        made.register(name)
        made.point(name, "champion", 1)

    def decide(self, version: int, *, promoted: bool, expected: int | None = 1) -> bool:
        with self._made.ledger.sessions.begin() as session:
            return record_promotion(
                session,
                PromotionRecord(
                    alias="champion",
                    version=version,
                    value=0.9,
                    incumbent=expected,
                    incumbent_value=None if expected is None else 0.8,
                    metric="accuracy",
                    margin=0.01,
                    promoted=promoted,
                    reason="because",
                ),
                project_id=PROJECT,
                name=self._name,
                job_id=self._made.ledger.accept(),
            )

    def kept(self) -> list[Promotion]:
        with self._made.ledger.sessions.begin() as session:
            promotions, _ = queries.promotions(session, self._name, project_id=PROJECT, limit=10)
            return promotions


def test_a_better_version_takes_the_alias_and_both_values_are_kept(made: Registry) -> None:
    contest = Contest(made, "better")
    assert contest.decide(made.register("better"), promoted=True)
    assert made.lookup("better@champion").version == 2
    (kept,) = contest.kept()
    assert (kept.value, kept.incumbent, kept.incumbent_value, kept.promoted) == (0.9, 1, 0.8, True)


def test_a_worse_version_does_not_and_both_values_are_kept(made: Registry) -> None:
    contest = Contest(made, "worse")
    assert contest.decide(made.register("worse"), promoted=False)
    assert made.lookup("worse@champion").version == 1
    (kept,) = contest.kept()
    assert (kept.value, kept.incumbent_value, kept.promoted) == (0.9, 0.8, False)


def test_a_decision_about_an_alias_that_has_moved_is_discarded(made: Registry) -> None:
    contest = Contest(made, "overtaken")
    second, third = made.register("overtaken"), made.register("overtaken")
    made.point("overtaken", "champion", second)
    assert not contest.decide(third, promoted=True, expected=1)
    assert not contest.decide(third, promoted=False, expected=None)
    assert (made.lookup("overtaken@champion").version, contest.kept()) == (second, [])
    assert contest.decide(third, promoted=True, expected=second)


def test_of_two_concurrent_winners_one_has_to_compare_again(
    made: Registry,
) -> None:
    contest = Contest(made, "race")
    candidates = [made.register("race") for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        decided = list(pool.map(lambda version: contest.decide(version, promoted=True), candidates))
    assert sorted(decided) == [False, True]


def test_a_job_writes_its_decision_once_even_if_it_repeats_it(made: Registry) -> None:
    job_id = made.ledger.accept()
    made.register("repeated")
    for _ in range(2):
        with made.ledger.sessions.begin() as session:
            assert record_promotion(
                session,
                PromotionRecord(
                    alias="champion",
                    version=1,
                    value=float("nan"),
                    incumbent=None,
                    incumbent_value=None,
                    promoted=True,
                    metric="loss",
                    margin=0.0,
                    reason="first",
                ),
                project_id=PROJECT,
                name="repeated",
                job_id=job_id,
            )
    with made.ledger.sessions.begin() as session:
        promotions, _ = queries.promotions(session, "repeated", project_id=PROJECT, limit=10)
    assert len(promotions) == 1
