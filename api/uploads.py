"""Uploads: a multipart body that flows into the object store, never whole in memory or on disk.

The event loop reads the socket; one thread per upload parses, hashes and writes, and asks the loop
for the next block. A client that hangs up, or a file over the limit, raises inside the store's
writer, so that nothing appears; the row follows the complete object.
"""

from __future__ import annotations

import functools
import hashlib
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import PurePosixPath
from typing import IO, Any

import anyio.from_thread
import anyio.to_thread
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from jobs import ids, ledger
from jobs.database import Sessions
from jobs.errors import BadRequest, TooLarge
from jobs.ledger import files
from jobs.objects import ObjectStore
from jobs.tables import File
