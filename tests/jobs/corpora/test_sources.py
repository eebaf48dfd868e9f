from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs import objects
from jobs.corpora import readers, sources
from jobs.errors import CorpusFailure, CorpusRefused
from jobs.kinds import Corpus
from tests.support.seaweed import BUCKET, S3

ALLOWED = ["file:///data", "s3://bucket/in/", "hf://datasets/org"]


@pytest.mark.parametrize(
    "uri",
    [
        "file:///data/a.csv",
        "file:///data/deep/a%20b.csv",
        "FILE:///data/a.csv",
        "s3://bucket/in/a.csv",
        "s3://bucket/in/100%/a.csv",
        "hf://datasets/org/name/data/train.parquet",
    ],
)
def test_uris_under_an_allowed_prefix_pass(uri: str) -> None:
    sources.check_allowed(uri, ALLOWED)


@pytest.mark.parametrize(
    "uri",
    [
        "file:///database/a.csv",
        "file:///etc/passwd",
        "file:///data/../etc/passwd",
        "file:///data/%2e%2e/etc/passwd",
        "file:///data/./a.csv",
        "file:///data/a%00.csv",
        "file://host/data/a.csv",
        "file:/data/a.csv",
        "/data/a.csv",
        "s3://bucket/other/a.csv",
        "s3://bucket/input/a.csv",
        "s3://bucket-of-mallory/in/a.csv",
        "s3://bucket/in/../secret.csv",
        "hf://datasets/organisation/name/a.csv",
        "http://example.com/a.csv",
        "",
    ],
)
def test_uris_outside_the_allow_list_are_refused(uri: str) -> None:
    with pytest.raises(CorpusRefused):
        sources.check_allowed(uri, ALLOWED)


def test_a_refusal_lists_what_is_allowed() -> None:
    with pytest.raises(CorpusRefused, match="file:///data, s3://bucket/in/, hf://datasets/org"):
        sources.check_allowed("file:///etc/passwd", ALLOWED)
    with pytest.raises(CorpusRefused, match="upload the file instead"):
        sources.check_allowed("file:///etc/passwd", [])


def test_a_scheme_alone_allows_all_of_it() -> None:
    sources.check_allowed("s3://any/key.csv", ["s3://"])
    sources.check_allowed("file:///any/where.csv", ["file:///"])


def test_a_file_is_read_from_its_beginning_each_time(tmp_path: Path) -> None:
    path = tmp_path / "a b.csv"
    path.write_bytes(b"text\nhello\n")
    source = sources.from_uri(path.as_uri(), allowed=[tmp_path.as_uri()])
    assert source.name == "a b.csv"
    for _ in range(2):
        with source.open() as file:
            assert file.read() == b"text\nhello\n"
            assert file.seekable()


def test_the_fingerprint_changes_with_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"text\n1\n")
    source = sources.from_uri(path.as_uri(), allowed=[tmp_path.as_uri()])
    before = source.fingerprint()
    assert source.fingerprint() == before
    path.write_bytes(b"text\n2\n")
    os.utime(path, ns=(1, 1))
    assert source.fingerprint() != before


def test_a_symlink_that_leads_outside_is_refused(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    secret = tmp_path / "secret.csv"
    secret.write_text("text\n")
    (allowed / "link.csv").symlink_to(secret)
    with pytest.raises(CorpusRefused, match="leads outside"):
        sources.from_uri((allowed / "link.csv").as_uri(), allowed=[allowed.as_uri()])


def test_a_symlink_swapped_in_after_the_check_is_refused_at_open(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    path = allowed / "a.csv"
    path.write_text("text\n")
    source = sources.from_uri(path.as_uri(), allowed=[allowed.as_uri()])
    secret = tmp_path / "secret.csv"
    secret.write_text("text\n")
    path.unlink()
    path.symlink_to(secret)
    with pytest.raises(CorpusRefused):
        source.open()


def test_an_allowed_folder_may_itself_be_a_symlink(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "a.csv").write_text("text\n")
    link = tmp_path / "link"
    link.symlink_to(real)
    sources.from_uri((link / "a.csv").as_uri(), allowed=[link.as_uri()]).open().close()


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(CorpusFailure, match="No such file"):
        sources.from_uri((tmp_path / "no.csv").as_uri(), allowed=[tmp_path.as_uri()])


def test_folders_and_pipes_are_unreadable(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path, tmp_path / "pipe.csv"):
        with pytest.raises(CorpusFailure, match="regular file"):
            sources.from_uri(path.as_uri(), allowed=[tmp_path.as_uri()])


@pytest.mark.parametrize("uri", ["s3://bucket", "hf://datasets/org/name", "hf://models/o/n/f.csv"])
def test_a_uri_must_name_a_file(uri: str) -> None:
    with pytest.raises(CorpusRefused):
        sources.from_uri(uri, allowed=["s3://", "hf://"])


def test_a_remote_source_makes_no_request_until_it_is_opened() -> None:
    assert sources.from_uri("s3://bucket/in/a.csv", allowed=ALLOWED).name == "a.csv"
    hub = sources.from_uri("hf://datasets/org/name/b/c.csv", allowed=ALLOWED)
    assert hub.name == "c.csv"


def test_an_uploaded_file_is_seekable_and_keeps_its_name(tmp_path: Path) -> None:
    store = objects.connect(tmp_path.as_uri())
    store.put("files/1", b"text\nhello\n")
    source = sources.from_object(store, "files/1", name="a.csv")
    assert source.name == "a.csv"
    assert source.fingerprint() == "files/1:11"
    with source.open() as file:
        assert file.read(4) == b"text"
        file.seek(0)
        assert file.read() == b"text\nhello\n"


def test_an_object_in_s3_is_read_and_its_fingerprint_follows_its_content(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    store = objects.connect(f"s3://{BUCKET}")
    store.put("corpora/in/a.csv", b"text\nhello\n")
    uri = f"s3://{BUCKET}/corpora/in/a.csv"
    source = sources.from_uri(uri, allowed=[f"s3://{BUCKET}/corpora/"])
    batches = readers.read(source, Corpus(uri=uri), max_row_bytes=1000)
    assert [text for batch in batches for text in batch.column("text").to_pylist()] == ["hello"]
    before = source.fingerprint()
    assert source.fingerprint() == before
    store.put("corpora/in/a.csv", b"text\nworld\n")
    assert source.fingerprint() != before


def test_an_object_missing_from_s3_makes_the_corpus_unreadable(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    source = sources.from_uri(f"s3://{BUCKET}/no/such.csv", allowed=["s3://"])
    with pytest.raises(CorpusFailure, match="cannot be read"):
        list(readers.read(source, Corpus(file="f"), max_row_bytes=1000))


def test_an_object_without_permission_makes_the_corpus_unreadable(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**s3.environment, "AWS_SECRET_ACCESS_KEY": "of another"}.items():
        monkeypatch.setenv(name, value)
    source = sources.from_uri(f"s3://{BUCKET}/corpora/secret.csv", allowed=["s3://"])
    with pytest.raises(CorpusFailure, match="cannot be read"):
        list(readers.read(source, Corpus(file="f"), max_row_bytes=1000))


@pytest.mark.parametrize("secret", ["nightshift-secret", "of another"])
def test_the_fingerprint_of_an_unreadable_corpus_fails_too(
    s3: S3, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    for name, value in {**s3.environment, "AWS_SECRET_ACCESS_KEY": secret}.items():
        monkeypatch.setenv(name, value)
    source = sources.from_uri(f"s3://{BUCKET}/corpora/none.csv", allowed=["s3://"])
    with pytest.raises(CorpusFailure, match=r"corpora/none\.csv cannot be read"):
        source.fingerprint()
