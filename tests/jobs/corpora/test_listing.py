"""What a pattern finds in folders and buckets, and that it leads nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from jobs import objects
from jobs.corpora import listing, sources
from jobs.errors import CorpusFailure, CorpusRefused
from jobs.inputs import Input
from tests.support.seaweed import BUCKET, S3


def found(
    uri: str, *, allowed: Sequence[str] = ("file:///", "s3://"), private: Sequence[str] = ()
) -> list[Input]:
    inputs = listing.matching(uri, allowed=allowed, private=private, beat=lambda: None)
    return sorted(inputs, key=lambda each: each.name)


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def test_a_pattern_finds_files_with_the_version_that_they_are_read_under(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "b c%.csv", "deep/c.csv", "d.txt", "_SUCCESS", ".e.csv", "_x/f.csv")
    uri = tmp_path.as_uri()
    assert [each.name for each in found(f"{uri}/**/*.csv")] == [
        f"{uri}/a.csv",
        f"{uri}/b%20c%25.csv",
        f"{uri}/deep/c.csv",
    ]
    for each in found(f"{uri}/**/*.csv"):
        source = sources.from_uri(each.name, allowed=["file:///"])
        assert source.fingerprint() == each.version
        with source.open() as file:
            assert len(file.read()) == each.bytes


def test_a_prefix_finds_all_below_it_and_a_folder_that_is_not_there_nothing(tmp_path: Path) -> None:
    write(tmp_path, "a", "deep/b")
    assert len(found(f"{tmp_path.as_uri()}/")) == 2
    assert found(f"{tmp_path.as_uri()}/none/*") == []


def test_a_link_that_leads_outside_refuses_the_pattern(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    write(inside, "a.csv")
    write(outside, "secret.csv")
    (inside / "b.csv").symlink_to(outside / "secret.csv")
    with pytest.raises(CorpusRefused, match="leads outside"):
        found(f"{inside.as_uri()}/*.csv", allowed=[inside.as_uri()])
    (inside / "b.csv").unlink()
    (inside / "linked").symlink_to(outside)
    assert len(found(f"{inside.as_uri()}/**/*.csv", allowed=[inside.as_uri()])) == 1
    (inside / "linked").unlink()
    (inside / "c.csv").symlink_to(inside / "a.csv")
    assert len(found(f"{inside.as_uri()}/*.csv", allowed=[inside.as_uri()])) == 2


def test_a_folder_that_is_a_link_to_the_outside_is_not_listed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    write(outside, "secret.csv")
    (inside / "day=1").symlink_to(outside)
    with pytest.raises(CorpusRefused, match="leads outside"):
        found(f"{inside.as_uri()}/day=1/*.csv", allowed=[inside.as_uri()])


@pytest.mark.parametrize(
    "uri",
    [
        "file:///other/*.csv",
        "file:///dat*/a.csv",
        "file:///data/../etc/*",
        "file:///data/*/../../etc/passwd",
        "file:///data/%2e%2e/*",
        "s3://other/*",
        "s3://*/a.csv",
        "hf://datasets/org/name/*.csv",
        "file:///data/a**b",
    ],
)
def test_a_pattern_outside_the_allow_list_is_refused_before_it_is_listed(uri: str) -> None:
    with pytest.raises(CorpusRefused):
        sources.check_allowed(uri, ["file:///data", "s3://bucket", "hf://datasets/org"])


def test_a_private_place_refuses_the_pattern(tmp_path: Path) -> None:
    write(tmp_path, "objects/files/file-1", "a.csv")
    private = [(tmp_path / "objects").as_uri()]
    with pytest.raises(CorpusRefused, match="files of this installation"):
        found(f"{tmp_path.as_uri()}/**", private=private)
    assert len(found(f"{tmp_path.as_uri()}/*", private=private)) == 1


def test_too_many_names_are_not_walked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, *(f"{n}.txt" for n in range(20)))
    monkeypatch.setattr(listing, "MOST_LISTED", 10)
    with pytest.raises(CorpusFailure, match="more than 10 names"):
        found(f"{tmp_path.as_uri()}/*.csv")


def test_a_bucket_is_listed_with_the_versions_of_its_objects(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    store = objects.connect(f"s3://{BUCKET}")
    for name in ("day=1/a.csv", "day=1/_SUCCESS", "day=2/x/b.csv", "day=10/c.csv", "e.csv"):
        store.put(f"listing/{name}", name.encode())
    names = [each.name for each in found(f"s3://{BUCKET}/listing/day=?/**/*.csv")]
    assert names == [f"s3://{BUCKET}/listing/{name}" for name in ("day=1/a.csv", "day=2/x/b.csv")]
    for each in found(f"s3://{BUCKET}/listing/"):
        assert sources.from_uri(each.name, allowed=["s3://"]).fingerprint() == each.version
    assert found(f"s3://{BUCKET}/listing/none/") == []
    with pytest.raises(CorpusRefused, match="files of this installation"):
        found(f"s3://{BUCKET}/listing/*.csv", private=[f"s3://{BUCKET}/listing"])
    with pytest.raises(CorpusFailure, match="cannot be listed"):
        found("s3://no-such-bucket-here/*")
