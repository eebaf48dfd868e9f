"""A reader of the pages: signs in, follows links, fills in forms, without a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from html.parser import HTMLParser
from typing import Any

import httpx

from tests.api.server.installation import Tenant

TOKEN = re.compile(r'name="form_token" value="([0-9a-f]*)"')


class Links(HTMLParser):
    """The addresses of a page's links, styles, scripts and forms, and what it has inline."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.files: list[str] = []
        self.forms: list[str] = []
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.inline += [name for name in found if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in found):
            self.inline.append(tag)
        for wanted, name, kept in (
            ("a", "href", self.links),
            ("link", "href", self.files),
            ("script", "src", self.files),
            ("img", "src", self.files),
            ("form", "action", self.forms),
        ):
            if tag == wanted and found.get(name):
                kept.append(str(found[name]))


class Reader:
    """One browser's cookies."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.http.get(path, headers=headers)

    def text(self, path: str) -> str:
        """What a page shows, without its marks."""
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        return " ".join(unescape(re.sub(r"<[^>]*>", " ", answer.text)).split())

    def token(self, path: str) -> str:
        found = TOKEN.search(self.get(path).text)
        assert found is not None
        return found[1]

    def post(self, path: str, *, token: str | None = None, **fields: Any) -> httpx.Response:
        """With the token of the head of every page, if none is given."""
        token = self.token("/pools") if token is None else token
        return self.http.post(path, data={"form_token": token, **fields})

    def sign_in(self, key: str, *, back: str = "/") -> httpx.Response:
        return self.http.post(
            "/sign-in", data={"form_token": self.token("/sign-in"), "key": key, "back": back}
        )


@contextmanager
def stranger_at(url: str) -> Iterator[Reader]:
    with httpx.Client(base_url=url, timeout=30) as http:
        yield Reader(http)


@contextmanager
def reader_of(tenant: Tenant) -> Iterator[Reader]:
    with stranger_at(tenant.installation.url) as reader:
        assert reader.sign_in(tenant.key).status_code == 303
        yield reader
