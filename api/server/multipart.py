"""One uploaded file and its fields, read from a multipart body as it arrives (RFC 7578)."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from jobs import names
from jobs.errors import BadRequest, TooLarge

MAX_FIELD = 1024
"""Bytes of a form field that is not the file."""

MAX_FILENAME = 255
DEFAULT_PURPOSE = "batch"

_PURPOSE = re.compile(names.PURPOSE)
_TAG = re.compile(names.TAG)
FIELDS = ("purpose", "tag")
"""Fields beside the file."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


def boundary(content_type: str) -> bytes:
    """The boundary that the header names. Raises ``BadRequest`` for any other kind of body."""
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise BadRequest(
            "an upload must be multipart/form-data with the fields `file` and `purpose`, "
            f"not {content_type or 'a body without a content type'!r}",
            code="not_multipart",
        )
    return options[b"boundary"]


def too_large(max_bytes: int) -> str:
    """The error for a file over the limit."""
    return f"a file must have at most {max_bytes:,} bytes, and this one has more"


class Upload:
    """Feeds the part named ``file`` to a sink, hashed and counted; keeps the small fields.

    Raises ``TooLarge`` as soon as the file is over the limit, ``BadRequest`` for a malformed body.
    """

    def __init__(self, sink: IO[bytes], *, boundary: bytes, max_bytes: int) -> None:
        self.filename = ""
        self.size = 0
        self._sink = sink
        self._max_bytes = max_bytes
        self._hash = hashlib.sha256()
        self._fields: dict[str, bytearray] = {}
        self._field: bytearray | None = None  # null: the part is the file
        self._field_name = ""
        self._begun = False
        self._header, self._value = b"", b""
        self._disposition = b""
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begins,
                    "on_header_field": self._header_grows,
                    "on_header_value": self._value_grows,
                    "on_header_end": self._header_ends,
                    "on_headers_finished": self._headers_end,
                    "on_part_data": self._data,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _malformed(error) from error

    @property
    def sha256(self) -> str:
        """Of the file's bytes, in hexadecimal."""
        return self._hash.hexdigest()

    @property
    def purpose(self) -> str:
        """As the client names it."""
        return self._fields.get("purpose", bytearray(DEFAULT_PURPOSE, "ascii")).decode()

    @property
    def tag(self) -> str | None:
        """As the client names it; ``None``: it has none."""
        return self._fields["tag"].decode() if "tag" in self._fields else None

    def feed(self, block: bytes) -> None:
        """Take the next bytes of the body."""
        try:
            self._parser.write(block)
        except FormParserError as error:
            raise _malformed(error) from error

    def check_complete(self) -> None:
        """Raise ``BadRequest`` unless the body ended where it should and held a file."""
        if not self._ended:
            raise BadRequest(
                "the multipart body must end with its closing boundary, and breaks off before",
                code="upload_incomplete",
            )
        if not self._begun:
            raise BadRequest("a field `file` with a file name must be there", param="file")
        purpose = self._fields.get("purpose", bytearray(DEFAULT_PURPOSE, "ascii"))
        if not _PURPOSE.fullmatch(purpose.decode("utf-8", "replace")):
            raise BadRequest(
                "purpose must be a word such as `batch`, of a-z, 0-9, `_` and `-`", param="purpose"
            )
        tag = self._fields.get("tag")
        if tag is not None and not _TAG.fullmatch(tag.decode("utf-8", "replace")):
            raise BadRequest(f"tag must be {names.IN_WORDS[f'^{names.TAG}$']}", param="tag")

    def _part_begins(self) -> None:
        self._disposition = b""

    def _header_grows(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _value_grows(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name == "file":
            self._begin_file(options.get(b"filename", b""))
        elif name in FIELDS:
            self._begin_field(name)
        else:
            raise BadRequest(
                f"an upload has the fields `file`, `purpose` and `tag`; {name!r} is none of them",
                param=name,
            )

    def _begin_field(self, name: str) -> None:
        if name in self._fields:
            raise BadRequest(f"`{name}` must be given once", param=name)
        self._field = self._fields[name] = bytearray()
        self._field_name = name

    def _begin_file(self, filename: bytes) -> None:
        if self._begun:
            raise BadRequest("one request uploads one file; this one has two", param="file")
        self._begun, self._field = True, None
        self.filename = _clean(filename.decode("utf-8", "replace"))
        if not self.filename:
            raise BadRequest("the field `file` must have a file name", param="file")

    def _data(self, data: bytes, start: int, end: int) -> None:
        view = memoryview(data)[start:end]
        if self._field is None:
            self._write(view)
        elif len(self._field) + len(view) > MAX_FIELD:
            raise BadRequest(f"a field must have at most {MAX_FIELD} bytes", param=self._field_name)
        else:
            self._field += view

    def _write(self, view: memoryview) -> None:
        self.size += len(view)
        if self.size > self._max_bytes:
            raise TooLarge(too_large(self._max_bytes), param="file")
        self._hash.update(view)
        self._sink.write(view)

    def _end(self) -> None:
        self._ended = True


def _clean(name: str) -> str:
    """The last segment of a name, whatever folders the client put before it."""
    last = PurePosixPath(name.replace("\\", "/")).name
    return _UNPRINTABLE.sub("", last)[-MAX_FILENAME:]


def _malformed(error: FormParserError) -> BadRequest:
    return BadRequest(f"the multipart body cannot be read: {error}", code="bad_multipart")
