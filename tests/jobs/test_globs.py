"""Which objects a pattern of URIs stands for."""

from __future__ import annotations

import pytest

from jobs import globs
from jobs.globs import Pattern


@pytest.mark.parametrize(
    ("uri", "path", "is_meant"),
    [
        ("s3://b/day=*/p.parquet", "day=1/p.parquet", True),
        ("s3://b/day=*/p.parquet", "day=1/x/p.parquet", False),
        ("s3://b/in/*.csv", "a.csv", True),
        ("s3://b/in/*.csv", "a.csv.gz", False),
        ("s3://b/in/?.csv", "ab.csv", False),
        ("s3://b/in/[ab].csv", "b.csv", True),
        ("s3://b/in/[!ab].csv", "b.csv", False),
        ("s3://b/in/**/*.csv", "a.csv", True),
        ("s3://b/in/**/*.csv", "x/y/a.csv", True),
        ("s3://b/in/**", "x/y/a.csv", True),
        ("s3://b/in/", "x/y/a.csv", True),
        ("s3://b/day=*/", "day=3/x/a.csv", True),
        ("s3://b/day=*/", "day=3", False),
        ("s3://b/in/*.csv", "_a.csv", False),
        ("s3://b/in/*.csv", ".a.csv", False),
        ("s3://b/in/", "_temporary/a.csv", False),
        ("s3://b/in/_*", "_SUCCESS", True),
        ("s3://b/in/**/_log/*", "x/_log/a", True),
        ("s3://b/in/[*].csv", "*.csv", True),
        ("s3://b/in/[*].csv", "a.csv", False),
        ("file:///in/%2A-?.csv", "*-1.csv", True),
        ("file:///in/%2A-?.csv", "a-1.csv", False),
        ("file:///in/a%20b*.csv", "a b1.csv", True),
        ("s3://b/in/" + "*a" * 30 + "b", "a" * 1_000, False),  # at once
        ("s3://b/in/" + "**/" * 20 + "x", "a/" * 40 + "y", False),
    ],
)
def test_a_pattern_stands_for(uri: str, path: str, *, is_meant: bool) -> None:
    assert globs.is_pattern(uri)
    assert Pattern.of(uri).matches(path.split("/")) is is_meant


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("s3://b/day=*/p.parquet", "s3://b"),
        ("s3://b/in/deep/*.csv", "s3://b/in/deep"),
        ("s3://*/a", "s3://"),
        ("s3://b/in/", "s3://b/in/"),
        ("file:///*/a", "file:///"),
        ("file:///data/a?", "file:///data"),
    ],
)
def test_the_fixed_part_ends_before_the_first_wildcard(uri: str, folder: str) -> None:
    assert globs.fixed(uri) == folder


@pytest.mark.parametrize("uri", ["s3://b/a.csv", "file:///a%2A.csv", "hf://datasets/o/n/a.csv"])
def test_a_plain_uri_is_no_pattern(uri: str) -> None:
    assert not globs.is_pattern(uri)


@pytest.mark.parametrize("uri", ["s3://b/a**/c", "s3://b/" + "*/" * 51])
def test_a_pattern_that_cannot_be_meant_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="a pattern"):
        Pattern.of(uri)
