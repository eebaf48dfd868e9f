"""Refusals of a spec in the words of the command line: ``--text-column``, not ``text_column``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import ValidationError

from api.cli.failures import Failure, said
from api.cli.spec_options import SpecOption
from api.client import ApiError
from jobs import validation
from jobs.errors import BadSpec, JobFailure

_FIELD = re.compile(r"(?<!')(?:`(?P<marked>\w+)`|\b(?P<plain>[a-z0-9]+(?:_[a-z0-9]+)+)\b)(?!')")
"""A field that a message names: between backticks, or by an underscore; data is in quotes."""


@dataclass(frozen=True)
class OptionNames:
    """The option, or argument, of each field of a spec, by the path of the field."""

    of_path: Mapping[str, str]

    @classmethod
    def of(cls, options: Iterable[SpecOption]) -> OptionNames:
        """The names of a command's options. The first of several names is the one that is said."""
        made = {".".join(option.path): option.name for option in options}
        return cls({"corpus": "CORPUS", **made})

    @contextmanager
    def spoken(self) -> Iterator[None]:
        """Say what is refused inside this block in the words of the command line."""
        try:
            yield
        except ValidationError as error:
            raise Failure(self.explain(error)) from error
        except (BadSpec, JobFailure) as error:
            raise Failure(self.translated(error.message, param=error.param)) from error
        except ApiError as error:
            error.message = self.translated(error.message, param=error.param)
            raise

    def explain(self, error: ValidationError) -> str:
        """One message for all problems that pydantic found."""
        problems = error.errors()
        lines = [self._line(problem) for problem in problems[: validation.SHOWN]]
        if len(problems) > validation.SHOWN:
            lines.append(f"and {len(problems) - validation.SHOWN} more")
        return "; ".join(lines)

    def translated(self, message: str, *, param: str | None = None) -> str:
        """The message with fields named as options."""
        name = self._named(param) if param else None
        path = f"{param}: "
        if name and message.startswith(path):
            return said(name, self.translated(message.removeprefix(path)))
        leaves = {path.rpartition(".")[2]: option for path, option in self.of_path.items()}

        def option(found: re.Match[str]) -> str:
            return leaves.get(found["marked"] or found["plain"], found[0])

        return _FIELD.sub(option, message)

    def _line(self, problem: object) -> str:
        path, sentence = validation.path(problem), validation.sentence(problem)
        name = self._named(path)
        if not path:
            return self.translated(sentence)
        sentence = sentence.removeprefix(f"{path.rpartition('.')[2]} ")
        return said(name or path, self.translated(sentence))

    def _named(self, path: str) -> str | None:
        """The option of the field, or of the nearest one that holds it, with the rest behind."""
        inner: list[str] = []
        while path:
            if path in self.of_path:
                return " ".join([self.of_path[path], *inner])
            path, _, last = path.rpartition(".")
            if not last.isdecimal():  # a place in an array
                inner.insert(0, last)
        return None
