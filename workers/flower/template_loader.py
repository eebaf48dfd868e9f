"""Templates of two folders: ours, and those of Flower that ours do not replace.

A template of ours may build on the one that it replaces: ``flower/task.html`` is Flower's.
"""

from __future__ import annotations

from pathlib import Path

from tornado.template import BaseLoader, Template

OURS = Path(__file__).with_name("templates")

FLOWERS = "flower/"
"""Begins the names of templates that are certainly Flower's."""


class LayeredLoader(BaseLoader):
    """Finds a template in our folder, or else in Flower's."""

    def __init__(self, flowers: Path) -> None:
        super().__init__()
        self._flowers = flowers

    def resolve_path(self, name: str, parent_path: str | None = None) -> str:  # noqa: ARG002
        """The name: templates do not lie in folders."""
        return name

    def _create_template(self, name: str) -> Template:
        return Template(self._path(name).read_bytes(), name=name, loader=self)

    def _path(self, name: str) -> Path:
        ours = OURS / name
        if not name.startswith(FLOWERS) and ours.is_file():
            return ours
        return self._flowers / name.removeprefix(FLOWERS)
