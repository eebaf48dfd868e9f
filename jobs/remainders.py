"""What a killed writer leaves of an object: a temporary file, or the parts of a multipart upload.

The object store has no call for either. A local folder has the temporary files beside the object,
under its name and a suffix. S3 lists and aborts multipart uploads; the requests are signed here
(Signature Version 4) with the keys of the ``AWS_*`` variables or of their files. With
credentials from elsewhere, and on stores without such a list (Azure forgets the parts after a
week), nothing is removed: let a lifecycle rule of the bucket abort incomplete multipart uploads.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree as ET

from jobs import secret_files

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

Remove = Callable[[str], None]
"""Removes what is left of the object of this key. Raises ``OSError``."""

TIMEOUT_SECONDS = 30


def in_folder(folder: Path) -> Remove:
    """Of a local store."""

    def remove(key: str) -> None:
        path = folder / key
        for temporary in path.parent.glob(f"{path.name}#*"):
            temporary.unlink(missing_ok=True)

    return remove


def key_files(variables: Mapping[str, str]) -> dict[str, str]:
    """The keys of S3 that files hold, by the names of their variables."""
    return secret_files.given(KEYS, variables)


def in_bucket(url: str) -> Remove:
    """Of an S3 store at ``s3://bucket/prefix``, where the environment has its keys."""
    parts = urlsplit(url)
    prefix = parts.path.strip("/")

    def remove(key: str) -> None:
        bucket = Bucket.of_environment(parts.netloc, os.environ)
        if bucket is None:
            return
        whole = f"{prefix}/{key}" if prefix else key
        for upload_id in bucket.uploads(whole):
            bucket.abort(whole, upload_id)

    return remove


def nowhere(_key: str) -> None:
    """Of a store that has no list of them."""


@dataclass(frozen=True)
class Bucket:
    """One S3 bucket, reached by its path."""

    endpoint: str
    name: str
    region: str
    key_id: str
    secret: str
    token: str

    @classmethod
    def of_environment(cls, name: str, environment: Mapping[str, str]) -> Bucket | None:
        """With the keys of the ``AWS_*`` variables; None where there are none."""
        environment = {**environment, **key_files(environment)}
        key_id = environment.get("AWS_ACCESS_KEY_ID")
        secret = environment.get("AWS_SECRET_ACCESS_KEY")
        if not key_id or not secret:
            return None
        region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
        region = region or "us-east-1"
        endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
        return cls(
            endpoint=(endpoint or f"https://s3.{region}.amazonaws.com").rstrip("/"),
            name=name,
            region=region,
            key_id=key_id,
            secret=secret,
            token=environment.get("AWS_SESSION_TOKEN", ""),
        )

    def uploads(self, key: str) -> list[str]:
        """Ids of the multipart uploads of one key that were neither completed nor aborted."""
        answer = self._ask("GET", "", {"prefix": key, "uploads": ""})
        uploads = [each for each in ET.fromstring(answer) if _tag(each) == "Upload"]  # noqa: S314 - the operator's own store
        fields = [{_tag(field): field.text or "" for field in upload} for upload in uploads]
        return [found["UploadId"] for found in fields if found.get("Key") == key]

    def abort(self, key: str, upload_id: str) -> None:
        """Remove the parts of one multipart upload."""
        self._ask("DELETE", key, {"uploadId": upload_id})

    def _ask(self, method: str, key: str, query: Mapping[str, str]) -> bytes:
        path = quote(f"{urlsplit(self.endpoint).path}/{self.name}/{key}".rstrip("/"))
        asked = "&".join(f"{quote(name)}={quote(query[name], safe='')}" for name in sorted(query))
        headers = self._signed(method, path, asked, now=datetime.now(UTC))
        parts = urlsplit(self.endpoint)
        request = urllib.request.Request(  # noqa: S310 - the operator's endpoint
            f"{parts.scheme}://{parts.netloc}{path}?{asked}", method=method, headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - as above
                read: bytes = answer.read()
                return read
        except urllib.error.HTTPError as error:
            error.close()
            raise

    def _signed(self, method: str, path: str, query: str, *, now: datetime) -> dict[str, str]:
        """The headers of a request without a body (AWS Signature Version 4)."""
        nothing = hashlib.sha256(b"").hexdigest()
        moment, day = f"{now:%Y%m%dT%H%M%SZ}", f"{now:%Y%m%d}"
        headers = {
            "host": urlsplit(self.endpoint).netloc,
            "x-amz-content-sha256": nothing,
            "x-amz-date": moment,
            **({"x-amz-security-token": self.token} if self.token else {}),
        }
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        canonical = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{nothing}"
        scope = f"{day}/{self.region}/s3/aws4_request"
        hashed = hashlib.sha256(canonical.encode()).hexdigest()
        signed = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashed}"
        key = f"AWS4{self.secret}".encode()
        for step in (day, self.region, "s3", "aws4_request"):
            key = _hmac(key, step)
        authorization = (
            f"AWS4-HMAC-SHA256 Credential={self.key_id}/{scope}, SignedHeaders={names}, "
            f"Signature={_hmac(key, signed).hex()}"
        )
        return {**headers, "authorization": authorization}


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _tag(element: ET.Element) -> str:
    """The name without its namespace."""
    return element.tag.rpartition("}")[2]
