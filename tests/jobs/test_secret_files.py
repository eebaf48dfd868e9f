"""Settings and keys from files: the value, the one error, and passwords apart from their URLs."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import pytest
import redis
import sqlalchemy as sa
from hypothesis import given
from pydantic import ValidationError
from pydantic_settings import SettingsError

from jobs import objects, secret_files
from jobs.errors import StorageRefused
from jobs.remainders import Bucket
from jobs.settings import Settings, variables
from tests.support.seaweed import BUCKET, S3

PASSWORDS = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20)


@pytest.fixture(autouse=True)
def _no_other_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in variables():
        monkeypatch.delenv(name, raising=False)


def written(folder: Path, text: str) -> str:
    path = folder / "secret"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_setting_is_read_from_the_file_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_METRICS_TOKEN_FILE", written(tmp_path, " token\n"))
    assert Settings().metrics_token == "token"


def test_a_list_and_a_number_may_lie_in_files_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_ALLOWED_MODELS_FILE", written(tmp_path, '["hf:org/"]'))
    assert Settings().allowed_models == ["hf:org/"]
    monkeypatch.delenv("NIGHTSHIFT_ALLOWED_MODELS_FILE")
    monkeypatch.setenv("NIGHTSHIFT_CHUNK_ROWS_FILE", written(tmp_path, "7"))
    assert Settings().chunk_rows == 7


@pytest.mark.parametrize("name", ["NIGHTSHIFT_DATABASE_URL", "DATABASE_URL"])
def test_a_url_may_lie_in_a_file_by_either_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{name}_FILE", written(tmp_path, "postgresql://u:p@h/d\n"))
    assert Settings().database_url == "postgresql://u:p@h/d"


def test_a_keyword_comes_before_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_CHUNK_ROWS_FILE", written(tmp_path, "7"))
    assert Settings(chunk_rows=9).chunk_rows == 9


def test_a_value_and_a_file_together_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_METRICS_TOKEN", "one")
    monkeypatch.setenv("NIGHTSHIFT_METRICS_TOKEN_FILE", written(tmp_path, "another"))
    with pytest.raises(SettingsError, match="NIGHTSHIFT_METRICS_TOKEN_FILE are both set"):
        Settings()


def test_settings_that_are_refused_show_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_DATABASE_PASSWORD", "a secret word")
    monkeypatch.setenv("NIGHTSHIFT_CHUNK_ROWS", "no number")
    with pytest.raises(ValidationError) as failure:
        Settings()
    assert "secret word" not in str(failure.value)
    assert "chunk_rows" in str(failure.value)


@pytest.mark.parametrize("empty", ["", " "])
def test_a_name_without_a_value_is_as_if_it_were_not_there(
    empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_METRICS_TOKEN", empty)
    monkeypatch.setenv("NIGHTSHIFT_METRICS_TOKEN_FILE", written(tmp_path, "token"))
    assert secret_files.read("NIGHTSHIFT_METRICS_TOKEN") == "token"
    assert Settings().metrics_token == "token"
    monkeypatch.setenv("NIGHTSHIFT_METRICS_TOKEN_FILE", empty)
    assert secret_files.read("NIGHTSHIFT_METRICS_TOKEN") is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), (b"", "which is empty"), (b"\xff", "not text in UTF-8")],
)
def test_a_file_that_gives_nothing_is_one_error_that_names_it(
    content: bytes | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("NIGHTSHIFT_METRICS_TOKEN_FILE", str(path))
    with pytest.raises(SettingsError, match=reason) as failure:
        Settings()
    assert "NIGHTSHIFT_METRICS_TOKEN_FILE" in str(failure.value)
    assert str(path) in str(failure.value)


@given(PASSWORDS)
def test_any_password_arrives_as_it_is(password: str) -> None:
    chosen = Settings(
        database_url="postgresql://nightshift@db:5432/nightshift",
        database_password=password,
        redis_url="redis://cache:6379/0",
        redis_password=password,
    )
    url = sa.make_url(chosen.database_url)
    assert (url.username, url.password, url.host) == ("nightshift", password, "db")
    known = redis.ConnectionPool.from_url(chosen.redis_url).connection_kwargs
    assert (known["password"], known["host"], known["db"]) == (password, "cache", 0)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", "redis://:p@h"),
        ("rediss://user@h:1/0", "rediss://user:p@h:1/0"),
        ("redis://:own@h", "redis://:own@h"),
        ("redis://[::1]:6379/0", "redis://:p@[::1]:6379/0"),
        ("postgresql://u@h1:1,h2:2/d?x=a@b", "postgresql://u:p@h1:1,h2:2/d?x=a@b"),
        ("postgresql:///d", "postgresql://:p@/d"),
        ("no url", "no url"),
    ],
)
def test_a_password_is_put_where_the_url_has_none(url: str, expected: str) -> None:
    assert secret_files.with_password(url, "p") == expected
    assert secret_files.with_password(url, "") == url


def test_the_keys_of_s3_may_lie_in_files(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        if name in {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}:
            (tmp_path / name).write_text(value + "\n")
            monkeypatch.delenv(name, raising=False)
            monkeypatch.setenv(f"{name}_FILE", str(tmp_path / name))
        else:
            monkeypatch.setenv(name, value)
    store = objects.connect(f"s3://{BUCKET}/from-files")
    store.put("greeting", b"hello")
    assert store.get("greeting") == b"hello"
    (tmp_path / "AWS_SECRET_ACCESS_KEY").write_text("wrong")
    with pytest.raises(StorageRefused):
        objects.connect(f"s3://{BUCKET}/from-files").get("greeting")


def test_what_removes_remainders_has_the_same_keys(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("key")
    (tmp_path / "secret").write_text("secret")
    bucket = Bucket.of_environment(
        "b",
        {
            "AWS_ACCESS_KEY_ID_FILE": str(tmp_path / "id"),
            "AWS_SECRET_ACCESS_KEY_FILE": str(tmp_path / "secret"),
        },
    )
    assert bucket is not None
    assert (bucket.key_id, bucket.secret) == ("key", "secret")
