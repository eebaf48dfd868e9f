"""Options of the command line made from the fields of a spec, so that none is missing or differs.

An option has the name, type, description and default of its field. The fields of a nested model are
options as well: of one that is always there by their own names, of one that may be left out with
its name before them (``explain.rows`` is ``--explain-rows``). What does not follow from a field is
an ``OptionForm`` in ``api.cli.option_forms``.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from jobs import durations
from jobs.kinds import BulkSpec, Corpus

PANELS = {
    "corpus": "Corpus",
    "output": "Output",
    "explain": "Explanations",
    "train": "Recipe",
    "lora": "LoRA adapters",
    "promote": "Promotion",
    "timing": "Timing",
    "policy": "Policy",
}
"""Headings in the help of a nested model's options, in their order; those of the kind come first,
those of every job last."""

OF_EVERY_JOB = BulkSpec.model_fields.keys() - {"model"}
JOB = "Job"

Path = tuple[str, ...]


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, kw_only=True)
class OptionForm:
    """How a field is written on the command line where that does not follow from the field."""

    names: tuple[str, ...] = ()
    type: Any = None
    metavar: str | None = None
    parser: Callable[[str], Any] | None = None
    """From what is written to a value of ``type``; its ``ValueError`` says what must be written."""
    read: Callable[[Any], Any] = _same
    """From the value on the command line to that of the field."""
    switch: bool = False
    """Whether a flag asks for the model itself, as its defaults are."""
    asks: bool = False
    """Whether the option asks for the model that its field is in: without it the field has no
    default."""
    hidden_by: str | None = None
    """What sets the field in place of an option."""


@dataclass(frozen=True, kw_only=True)
class SpecOption:
    """A field of a spec as an option."""

    path: Path
    name: str
    """As it is written, with the dashes; the first of several."""
    panel: str | None
    parameter: inspect.Parameter
    """As typer reads it; its name is the keyword under which typer hands over the value."""
    read: Callable[[Any], Any]
    names_corpus: bool = False
    """Whether the value is a corpus beside the first one: a file, an id or a URI."""

    @property
    def is_required(self) -> bool:
        """Whether a command without it is refused."""
        return self.parameter.default is inspect.Parameter.empty


def of_spec(
    spec: type[BaseModel], forms: Mapping[str, OptionForm], *, overlay: bool
) -> list[SpecOption]:
    """Every option of a spec, by the headings of the help.

    ``overlay``: the values lie over those of a file, so that an option that is not given changes
    nothing; its default stands in the help alone.
    """
    order = [None, *PANELS.values(), JOB]
    found = _Walk(forms).fields(spec, path=(), prefix="", panel=None, overlay=overlay)
    return sorted(found, key=lambda each: (order.index(each.panel), not each.is_required))


def gathered(options: Iterable[SpecOption], given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that were given, nested as in the spec."""
    fields: dict[str, Any] = {}
    for option in options:
        value = given[option.parameter.name]
        if value is None or value == []:
            continue
        *above, name = option.path
        place = fields
        for step in above:
            place = place.setdefault(step, {})
        place[name] = option.read(value)
    return fields


@dataclass(frozen=True)
class _Walk:
    forms: Mapping[str, OptionForm]

    def fields(
        self, model: type[BaseModel], *, path: Path, prefix: str, panel: str | None, overlay: bool
    ) -> Iterator[SpecOption]:
        for name in _own_first(model):
            field = model.model_fields[name]
            here = (*path, name)
            form = self.forms.get(".".join(here), OptionForm())
            if form.hidden_by is not None:
                continue
            type_, optional = _without_none(field.annotation)
            nested = form.type is None and inspect.isclass(type_) and issubclass(type_, BaseModel)
            below = PANELS.get(name, panel)
            if name in OF_EVERY_JOB and not path and not nested:
                below = JOB
            if not nested:
                yield _option(here, field, form, prefix=prefix, panel=below, overlay=overlay)
            elif optional and issubclass(type_, Corpus):
                corpus = replace(form, type=str)
                made = _option(here, field, corpus, prefix=prefix, panel=panel, overlay=True)
                yield replace(made, names_corpus=True)
            else:
                if form.switch:
                    yield _switch(here, field, panel=below)
                yield from self.fields(
                    type_,
                    path=here,
                    prefix=f"{prefix}{name}_" if optional else prefix,
                    panel=below,
                    overlay=overlay or optional,
                )


def _option(
    path: Path,
    field: FieldInfo,
    form: OptionForm,
    *,
    prefix: str,
    panel: str | None,
    overlay: bool,
) -> SpecOption:
    name = f"{prefix}{path[-1]}"
    type_, optional = _without_none(field.annotation)
    names, read, multiple = form.names, form.read, False
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    if form.type is not None:
        type_ = form.type
    elif type_ is bool and not optional:
        names = names or (_long(name),)
    elif get_origin(type_) is Literal and len(get_args(type_)) == 1:
        read, type_ = _constant(get_args(type_)[0]), bool
        names = names or (_long(name),)
    elif get_origin(type_) is tuple:
        type_, multiple = list[str], True
    if type_ is bool and not names:
        names = (f"{_long(name)}/--no-{name.replace('_', '-')}",)
    shown = _shown(default)
    unset = overlay or shown is None
    required = field.is_required() and not overlay
    option = typer.Option(
        *(names or (_long(name),)),
        help=_help(field, multiple=multiple, default=_in_help(default, form, names, unset=unset)),
        metavar=form.metavar or ("TEXT" if multiple else None),
        parser=form.parser,
        rich_help_panel=panel,
    )
    return SpecOption(
        path=path,
        name=(names or (_long(name),))[0].partition("/")[0],
        panel=panel,
        read=read,
        parameter=inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=Annotated[type_ if required or not unset else type_ | None, option],
            default=inspect.Parameter.empty if required else None if unset else default,
        ),
    )


def _switch(path: Path, field: FieldInfo, *, panel: str | None) -> SpecOption:
    option = typer.Option(_long(path[-1]), help=_help(field), rich_help_panel=panel)
    parameter = inspect.Parameter(
        path[-1],
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[bool | None, option],
        default=None,
    )
    return SpecOption(
        path=path, name=_long(path[-1]), panel=panel, parameter=parameter, read=lambda _: {}
    )


def _long(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _help(field: FieldInfo, *, multiple: bool = False, default: str | None = None) -> str:
    assert field.description, "a field without a description has no help"
    several = " May be given several times." if multiple else ""
    otherwise = "" if default is None else f" Default: {default}."
    return f"{field.description}{several}{otherwise}"


def _in_help(default: Any, form: OptionForm, names: tuple[str, ...], *, unset: bool) -> str | None:
    """The default as the help has it; ``None``: it has none, or typer writes it there."""
    if not unset or form.asks:
        return None
    if default is False and names and "/" in names[0]:
        return names[0].partition("/")[2]
    return _shown(default)


def _shown(default: Any) -> str | None:
    """A default in words; ``None``: it is empty, and the description says what that means."""
    if default is None or default is False or isinstance(default, tuple | dict | BaseModel):
        return None
    if isinstance(default, timedelta):
        return durations.written(default)
    return str(default.value) if isinstance(default, Enum) else str(default)


def _own_first(model: type[BaseModel]) -> list[str]:
    """The names of the fields, those of a class before those that it inherits."""
    names = [name for each in model.__mro__ for name in inspect.get_annotations(each)]
    return [name for name in dict.fromkeys(names) if name in model.model_fields]


def _constant(value: Any) -> Callable[[Any], Any]:
    return lambda given: value if given else None


def _without_none(annotation: Any) -> tuple[Any, bool]:
    """The type, and whether ``None`` was one of its alternatives."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation, False
    others = [each for each in get_args(annotation) if each is not type(None)]
    inner = others[0] if len(others) == 1 else str
    return inner, len(others) < len(get_args(annotation))
