from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import struct
import zipfile

import pyarrow as pa
import pytest

from jobs.corpora import readers, text_stream
from jobs.corpora.sources import Source
from jobs.errors import CorpusFailure
from jobs.kinds import Corpus, CorpusFormat
from tests.jobs.corpora.small_corpora import brief, rows, source, texts

LINES = b"one\ntwo\nthree\n"


def zstd(data: bytes) -> bytes:
    packed: bytes = pa.Codec("zstd").compress(data, asbytes=True)
    return packed


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jsonl", CorpusFormat.JSONL),
        ("a.ndjson", CorpusFormat.JSONL),
        ("a.json", CorpusFormat.JSONL),
        ("A.CSV", CorpusFormat.CSV),
        ("a.tsv.gz", CorpusFormat.TSV),
        ("a.b.txt.zst", CorpusFormat.TEXT),
        ("a.parquet", CorpusFormat.PARQUET),
    ],
)
def test_the_format_follows_from_the_suffix(name: str, expected: CorpusFormat) -> None:
    assert text_stream.guess_format(name, Corpus(file="f")) is expected


@pytest.mark.parametrize("name", ["corpus", "a.xlsx", "a.gz", ".csv"])
def test_an_unknown_suffix_is_refused_with_advice_to_pass_format(name: str) -> None:
    with pytest.raises(CorpusFailure, match="pass `format`") as caught:
        rows(b"x", name)
    assert caught.value.code == "format_unknown"


def test_a_given_format_overrides_the_suffix() -> None:
    assert texts(b"a,b\n", "x.csv", format="text") == ["a,b"]


SKIPPABLE = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(LINES),
        gzip.compress(LINES[:5]) + gzip.compress(LINES[5:]),
        gzip.compress(LINES) + bytes(512),
        zstd(LINES),
        zstd(LINES[:5]) + zstd(LINES[5:]),
        SKIPPABLE + zstd(LINES),
    ],
    ids=["gzip", "two members", "zero padding", "zstd", "two frames", "skippable frame"],
)
def test_compression_is_detected_by_the_first_bytes(data: bytes) -> None:
    assert texts(data, "a.txt") == ["one", "two", "three"]


def test_a_suffix_of_compression_is_ignored() -> None:
    assert texts(LINES, "a.txt.gz") == ["one", "two", "three"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.txt"])
@pytest.mark.parametrize("compress", [gzip.compress, zstd], ids=["gzip", "zstd"])
def test_every_text_format_reads_every_compression(name: str, compress: object) -> None:
    plain = {"a.jsonl": b'"x"\n', "a.txt": b"x\n"}.get(name, b"text\nx\n")
    assert callable(compress)
    assert texts(compress(plain), name) == ["x"]


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_given_compression_must_be_right(kind: str) -> None:
    with pytest.raises(CorpusFailure, match=f"not a whole {kind} file") as caught:
        rows(LINES, "a.txt", compression=kind)
    assert caught.value.code == "corpus_unreadable"


def test_compression_none_reads_the_bytes_as_they_are() -> None:
    assert texts(gzip.compress(b"x"), "a.txt", compression="none")[0] == "<bad_encoding>"


NOISE = b"".join(b"%d %d\n" % (n, n * n * 7919 % 1_000_003) for n in range(200_000))


@pytest.mark.parametrize("compress", [gzip.compress, zstd], ids=["gzip", "zstd"])
def test_a_truncated_compressed_file_fails_at_its_end(compress: object) -> None:
    assert callable(compress)
    packed = compress(NOISE)
    cut = source(packed[: len(packed) // 2], "a.txt")
    batches = readers.read(cut, Corpus(file="f"), max_row_bytes=1000)
    assert next(batches).num_rows > 0
    with pytest.raises(CorpusFailure, match="not a whole") as caught:
        list(batches)
    assert caught.value.code == "corpus_unreadable"


MIB = 2**20


def frame(*, window: int | None = None, content: int | None = None) -> bytes:
    """The lines as one raw block of a zstd frame whose header asks for that much memory.

    Of a power of two, or for a single segment: of that much content.
    """
    block = (len(LINES) << 3 | 1).to_bytes(3, "little") + LINES
    if content is not None:
        return b"\x28\xb5\x2f\xfd" + b"\xe0" + content.to_bytes(8, "little") + block
    assert window is not None
    exponent = window.bit_length() - 11
    return b"\x28\xb5\x2f\xfd" + bytes([0, exponent << 3]) + block


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(window=256 * MIB), "256 MiB"),
        (frame(window=2048 * MIB), "2,048 MiB"),
        (SKIPPABLE + frame(window=512 * MIB), "512 MiB"),
        (frame(window=MIB) + frame(window=1024 * MIB), "1,024 MiB"),
        (zstd(LINES) + SKIPPABLE + frame(window=256 * MIB), "256 MiB"),
        (frame(content=300 * MIB), "300 MiB"),
    ],
)
def test_a_zstd_window_that_is_too_large_is_refused_with_advice(data: bytes, reason: str) -> None:
    with pytest.raises(
        CorpusFailure, match=f"needs a window of {reason} in memory, .* 128 MiB"
    ) as e:
        rows(data, "a.txt.zst")
    assert e.value.code == "corpus_unreadable"
    assert "compress it again without --long" in e.value.message


def test_a_large_window_far_into_a_file_is_named_too() -> None:
    data = zstd(NOISE) * 3 + frame(window=256 * MIB)
    with pytest.raises(CorpusFailure, match="needs a window of 256 MiB"):
        rows(data, "a.txt")


def test_zstd_windows_of_128_mib_are_read() -> None:
    data = frame(window=128 * MIB) + SKIPPABLE + frame(window=MIB)
    assert texts(data, "a.txt") == ["one", "two", "three"] * 2


@pytest.mark.parametrize("data", [frame(window=MIB)[:-1], frame(window=MIB) + b"garbage"])
def test_other_zstd_faults_keep_their_message(data: bytes) -> None:
    with pytest.raises(CorpusFailure, match="it is not a whole zstd file"):
        rows(data, "a.txt")


def test_data_after_the_last_gzip_member_is_named_as_the_reason() -> None:
    with pytest.raises(CorpusFailure, match="the data after its last member is not gzip"):
        rows(gzip.compress(LINES) + b"garbage", "a.txt")


@pytest.mark.parametrize("kind", CorpusFormat)
@pytest.mark.parametrize(
    "fault",
    [
        OverflowError("date value out of range"),
        KeyError("W. Europe Standard Time"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        struct.error("unpack requires a buffer of 4 bytes"),
        RecursionError("maximum recursion depth exceeded"),
        pa.ArrowInvalid("several\nlines"),
        pa.ArrowNotImplementedError(""),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_an_error_of_a_library_becomes_a_corpus_failure(
    kind: CorpusFormat, fault: Exception
) -> None:
    def opened() -> io.BytesIO:
        raise fault

    broken = Source(name="a", fingerprint=lambda: "", open=opened)
    with pytest.raises(CorpusFailure, match=f"after row 0: {type(fault).__name__}: ") as caught:
        list(readers.read(broken, Corpus(file="f", format=kind), max_row_bytes=1000))
    assert caught.value.code == "corpus_unreadable"
    assert "\n" not in caught.value.message


def test_a_failure_after_some_rows_names_the_last_good_row() -> None:
    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise OverflowError("somewhere")
            return super().read(size)

    data = b"line\n" * 300_000
    broken = Source(name="a.txt", fingerprint=lambda: "", open=lambda: Breaking(data))
    batches = readers.read(broken, Corpus(file="f", compression="none"), max_row_bytes=2**20)
    with pytest.raises(
        CorpusFailure, match=r"cannot be read after row [\d,]+: OverflowError: some"
    ):
        list(batches)


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.csv"), "text\nx\n")  # as of 1980, not of now
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (zipped(), "zip archive"),
        (bz2.compress(LINES), "bzip2"),
        (lzma.compress(LINES), "xz"),
        (b"PAR1....", "Parquet"),
    ],
    ids=["zip", "bzip2", "xz", "parquet"],
)
def test_other_containers_are_named(data: bytes, reason: str) -> None:
    with pytest.raises(CorpusFailure, match=reason) as caught:
        rows(data, "a.csv")
    assert caught.value.code == "corpus_unreadable"


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.txt", "a.txt.gz"])
@pytest.mark.parametrize("data", [b"", b"\n \n\r\n", codecs.BOM_UTF8])
def test_a_corpus_without_rows_is_empty(name: str, data: bytes) -> None:
    if name[2:5] in ("csv", "tsv"):
        data = data.strip() + b"text\n"
    with pytest.raises(CorpusFailure) as caught:
        rows(data, name)
    assert caught.value.code == "corpus_empty"


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "latin-1"])
@pytest.mark.parametrize(
    ("bom", "written"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
    ],
)
def test_a_bom_overrides_the_encoding(encoding: str, bom: bytes, written: str) -> None:
    data = bom + "text\nnaïve 中文\n".encode(written)
    assert texts(data, "a.csv", encoding=encoding) == ["naïve 中文"]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("gb18030", "中文 㐀 and more"),
        ("big5", "中文"),
        ("shift_jis", "表示 ソ"),
        ("iso2022_jp", "日本語"),
        ("latin-1", "naïve"),
        ("cp1252", "“quoted” €"),
        ("utf-16-le", "Ċ਀ 中文 😀"),
        ("utf-16-be", "Ċ਀ 中文 😀"),
        ("utf-16", "中文"),
        ("utf-8-sig", "中文"),
        ("utf-7", "中文"),
    ],
)
def test_a_given_encoding_is_used(encoding: str, text: str) -> None:
    data = f'text,n\r\n"{text}",1\r\nx,2\r\n'.encode(encoding)
    assert texts(data, "a.csv", encoding=encoding) == [text, "x"]


def test_long_texts_are_read_across_blocks_in_any_encoding() -> None:
    written = [f"{n} 中文😀 " * 20 for n in range(5000)]
    data = "\n".join(written).encode("utf-16-le")
    assert texts(data, "a.txt", encoding="utf-16-le") == written


@pytest.mark.parametrize(
    ("encoding", "bad"),
    [
        ("utf-8", b"ab\xff\xfecd"),
        ("utf-8", b"\xed\xa0\x80"),
        ("utf-8", b"cut \xe4\xb8"),
        ("ascii", b"\xe9"),
        ("cp1252", b"\x81"),
        ("gb18030", b"cut \x81"),
        ("shift_jis", b"\xa0\xff"),
    ],
)
def test_undecodable_bytes_spoil_only_their_own_row(encoding: str, bad: bytes) -> None:
    result = rows(b"before\n" + bad + b"\nafter\n", "a.txt", encoding=encoding)
    assert brief(result) == [(1, "before"), (2, "<bad_encoding>"), (3, "after")]


def test_a_lone_surrogate_in_utf_16_spoils_only_its_own_row() -> None:
    data = "before\nx".encode("utf-16-le") + b"\x00\xd8" + "\nafter\n".encode("utf-16-le")
    assert texts(data, "a.txt", encoding="utf-16-le") == ["before", "<bad_encoding>", "after"]


def test_utf_16_with_half_a_character_at_the_end_keeps_the_other_rows() -> None:
    data = "one\ntwo".encode("utf-16-le") + b"\x41"
    assert texts(data, "a.txt", encoding="utf-16-le") == ["one", "<bad_encoding>"]


@pytest.mark.parametrize("encoding", ["punycode", "idna"])
def test_a_codec_that_is_not_a_text_encoding_is_unreadable(encoding: str) -> None:
    with pytest.raises(CorpusFailure) as caught:
        rows(b"caf-\xff\xfe..x\n" * 50, "a.txt", encoding=encoding)
    assert caught.value.code == "corpus_unreadable"


class Flaky(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > 1000:
            raise TimeoutError("storage did not answer")
        return super().read(size)


@pytest.mark.parametrize("compress", [gzip.compress, zstd, bytes], ids=["gzip", "zstd", "plain"])
def test_a_storage_fault_is_not_reported_as_an_unreadable_corpus(compress: object) -> None:
    assert callable(compress)
    data = compress(NOISE)
    flaky = Source(name="a.txt", fingerprint=lambda: "", open=lambda: Flaky(data))
    with pytest.raises(TimeoutError, match="storage"):
        list(readers.read(flaky, Corpus(file="f"), max_row_bytes=1000))
