"""Versions that lost are deleted but for the newest, if nothing uses them or ever has."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from jobs import purger
from jobs.errors import NotFound
from jobs.ledger import rejected_versions
from jobs.ledger.promotions import PromotionRecord, record_promotion
from jobs.tables import ModelVersion
from tests.jobs.ledger.building import PROJECT
from tests.jobs.registry.conftest import Registry
from tests.jobs.registry.test_versions import submit


def contested(made: Registry, name: str, *outcomes: str, folder: Path | None = None) -> None:
    """A champion, and a version for each decision about it."""
    made.register(name, folder=folder)
    made.point(name, "champion", 1)
    incumbent = 1
    for version, outcome in enumerate(outcomes, start=2):
        wins = outcome == "won"
        made.register(name, folder=folder)
        with made.ledger.sessions.begin() as session:
            assert record_promotion(
                session,
                PromotionRecord(
                    alias="champion",
                    version=version,
                    value=0.9,
                    incumbent=incumbent,
                    incumbent_value=0.8,
                    metric="accuracy",
                    margin=0.0,
                    promoted=wins,
                    reason="because",
                ),
                project_id=PROJECT,
                name=name,
                job_id=made.ledger.accept(),
            )
        incumbent = version if wins else incumbent


def delete(
    made: Registry, name: str, *, keep: int | None = None, keep_for: timedelta | None = None
) -> list[int]:
    with made.ledger.sessions.begin() as session:
        return rejected_versions.delete(
            session, project_id=PROJECT, name=name, alias="champion", keep=keep, keep_for=keep_for
        )


def test_the_newest_that_lost_are_kept_and_winners_always(made: Registry) -> None:
    contested(made, "nightly", "lost", "won", "lost", "lost")
    assert delete(made, "nightly", keep=1) == [4, 2]
    assert [made.lookup(f"nightly@{version}").version for version in (1, 3, 5)] == [1, 3, 5]
    with pytest.raises(NotFound, match="nightly@2 was deleted"):
        made.lookup("nightly@2")
    assert delete(made, "nightly", keep=1) == []


def test_those_that_are_younger_are_kept(made: Registry) -> None:
    contested(made, "aged", "lost", "lost", "lost")
    with made.ledger.sessions.begin() as session:
        session.execute(
            sa.update(ModelVersion)
            .where(ModelVersion.name == "aged", ModelVersion.version.in_([2, 3]))
            .values(created_at=sa.func.now() - timedelta(days=20))
        )
    two_weeks = timedelta(days=14)
    assert delete(made, "aged", keep=2, keep_for=two_weeks) == [2]
    assert delete(made, "aged", keep_for=two_weeks) == [3]
    assert delete(made, "aged", keep_for=two_weeks) == []


def test_what_is_used_or_was_chosen_by_hand_stays(made: Registry) -> None:
    contested(made, "used", "lost", "lost", "lost", "lost")
    submit(made, kind="classify", model="used@2")
    made.point("used", "stable", 3)
    made.point("used", "stable", 1)
    assert delete(made, "used", keep=1) == [4]


def test_the_purger_removes_their_objects_and_no_others(made: Registry, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    contested(made, "stored", "lost", "lost", folder=tmp_path)
    keys = {n: {file["key"] for file in made.lookup(f"stored@{n}").files} for n in (1, 2, 3)}
    assert delete(made, "stored", keep=1) == [2]
    assert purger.purge_deleted(made.ledger.sessions, made.store) >= 1
    left = {stored.key for stored in made.store.listing()}
    assert keys[2].isdisjoint(left)
    assert keys[1] | keys[3] <= left
    assert purger.purge_deleted(made.ledger.sessions, made.store) == 0
