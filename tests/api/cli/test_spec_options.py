"""Every field of every spec is an option of its command, in the field's own words."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

import pytest
import typer.main
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from api.cli import app, option_forms, schedule_options, spec_options
from jobs import kinds
from jobs.kinds import Corpus

FORMS = dict.fromkeys(kinds.BULK, option_forms.BULK) | {
    "evaluate": option_forms.EVALUATE,
    "finetune": option_forms.FINETUNE,
}


def fields(
    model: type[BaseModel], forms: dict[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Every field that is no model itself, however deep; a corpus beside the first is one."""
    for name, field in model.model_fields.items():
        inner, form = of_model(field), forms.get(".".join((*path, name)))
        whole = form is not None and form.type is not None
        another = inner is not None and issubclass(inner, Corpus) and not field.is_required()
        if inner is None or whole or another:
            yield (*path, name), field
        else:
            yield from fields(inner, forms, (*path, name))


def of_model(field: FieldInfo) -> type[BaseModel] | None:
    union = get_origin(field.annotation) in (Union, types.UnionType)
    for each in get_args(field.annotation) if union else (field.annotation,):
        if inspect.isclass(each) and issubclass(each, BaseModel):
            return each
    return None


def command(kind: str) -> Any:
    root: Any = typer.main.get_command(app)
    return root.commands[kind]


@pytest.mark.parametrize("kind", sorted(kinds.KINDS))
def test_every_field_has_its_option_or_something_that_says_it_instead(kind: str) -> None:
    forms = FORMS[kind]
    options = spec_options.of_spec(kinds.KINDS[kind], forms, overlay=kind in kinds.TRAINING)
    hidden = {path for path, form in forms.items() if form.hidden_by}
    found = {".".join(path) for path, _ in fields(kinds.KINDS[kind], forms)}
    switches = {path for path, form in forms.items() if form.switch}
    assert {".".join(option.path) for option in options} - switches == found - hidden


@pytest.mark.parametrize("kind", sorted(kinds.KINDS))
def test_an_option_has_the_words_of_its_field(kind: str) -> None:
    forms = FORMS[kind]
    options = spec_options.of_spec(kinds.KINDS[kind], forms, overlay=kind in kinds.TRAINING)
    names = {option.path: option.parameter.name for option in options}
    shown = {parameter.name: parameter.help for parameter in command(kind).params}
    for path, field in fields(kinds.KINDS[kind], forms):
        if path in names:
            assert field.description
            assert shown[names[path]].startswith(field.description)


@pytest.mark.parametrize("kind", sorted(kinds.BULK))
def test_an_option_has_the_default_of_its_field(kind: str) -> None:
    spec: Any = kinds.KINDS[kind]
    options = spec_options.of_spec(spec, FORMS[kind], overlay=False)
    given = {option.parameter.name: option.parameter.default for option in options}
    given["model"] = "hf:org/name"
    chosen = spec_options.gathered(options, given)
    corpus = {"file": "file-1"}
    plain = spec.model_validate({"corpus": corpus, "model": "hf:org/name"})
    assert spec.model_validate(chosen | {"corpus": chosen["corpus"] | corpus}) == plain


@pytest.mark.parametrize("kind", sorted(kinds.KINDS))
def test_no_two_options_of_a_command_share_a_name(kind: str) -> None:
    names = [name for each in command(kind).params for name in (*each.opts, *each.secondary_opts)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("kind", sorted(kinds.TRAINING))
def test_what_a_training_command_is_not_given_is_left_to_the_spec_file(kind: str) -> None:
    options = spec_options.of_spec(kinds.KINDS[kind], FORMS[kind], overlay=True)
    given = {option.parameter.name: option.parameter.default for option in options}
    assert spec_options.gathered(options, given) == {}


def test_the_help_of_a_schedule_has_its_defaults() -> None:
    shown = {option.name: _help(option.parameter) for option in schedule_options.OPTIONS}
    for name, default in {
        "--time-zone": "UTC",
        "--offset": "0s",
        "--jitter": "0s",
        "--gap": "shift",
        "--fold": "first",
        "--overlap": "skip",
        "--catch-up": "latest",
        "--catch-up-window": "1d",
        "--catch-up-limit": "1000",
        "--pause-on-failure": "--no-pause-on-failure",
        "--drift-threshold": "0.2",
    }.items():
        assert shown[name].endswith(f" Default: {default}."), name


def test_an_option_that_asks_for_a_promotion_has_no_default() -> None:
    options = spec_options.of_spec(kinds.KINDS["finetune"], option_forms.FINETUNE, overlay=True)
    (promote,) = [option for option in options if option.name == "--promote"]
    assert "Default" not in _help(promote.parameter)


def _help(parameter: inspect.Parameter) -> str:
    _, option = get_args(parameter.annotation)
    return str(option.help)
