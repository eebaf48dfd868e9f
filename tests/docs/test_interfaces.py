"""Every route, command, option and error code that exists stands in the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from api.cli import app
from api.server.app import create_app
from jobs import kinds
from jobs.settings import Settings
from tests.support.result_schemas import schema_of

ROOT = Path(__file__).parents[2]
API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
CLI = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
TRAINING = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
MODELS = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
OF_REQUESTS = (
    *("controls", "deletions", "files", "fires", "keys", "quotas", "schedules", "submission"),
    *("webhook_deliveries", "webhook_endpoints"),
)
"""Modules of the ledger that answer requests."""
RAISED = re.compile(r'code="([a-z_]+)"')


def _routes() -> set[str]:
    paths = create_app(Settings()).openapi()["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


def _commands() -> Iterator[tuple[str, list[str]]]:
    """Each command with its options, groups opened up."""
    root = typer.main.get_command(app)
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", {"": command})
        for last, leaf in inner.items():
            options = [opt for param in leaf.params for opt in param.opts if opt[:2] == "--"]
            yield f"nightshift {name} {last}".strip(), options


def test_the_documented_routes_are_those_that_exist() -> None:
    documented = set(re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", API, flags=re.MULTILINE))
    assert documented == _routes()


def test_every_command_is_documented() -> None:
    missing = [name for name, _ in _commands() if f"`{name}" not in CLI]
    assert missing == []


def test_no_command_is_documented_that_does_not_exist() -> None:
    written = re.findall(r"^\| `(nightshift [a-z0-9]+(?: [a-z]+)?)", CLI, flags=re.MULTILINE)
    assert set(written) <= {name for name, _ in _commands()}


@pytest.mark.parametrize("command", sorted(kinds.KINDS))
def test_every_option_that_makes_a_spec_is_documented(command: str) -> None:
    (options,) = [options for name, options in _commands() if name == f"nightshift {command}"]
    assert [option for option in options if f"`{option}" not in CLI] == []


def test_every_error_code_that_the_api_raises_is_documented() -> None:
    server = (ROOT / "api" / "server").rglob("*.py")
    ledger = (ROOT / "jobs" / "ledger" / f"{name}.py" for name in OF_REQUESTS)
    codes = {
        code for path in (*server, *ledger) for code in RAISED.findall(path.read_text("utf-8"))
    }
    assert "file_not_found" in codes
    assert [code for code in sorted(codes) if f"`{code}`" not in API] == []


def test_every_field_of_a_recipe_is_documented() -> None:
    models = (kinds.TrainOptions, kinds.Lora, kinds.Promote)
    fields = {name for model in models for name in model.model_fields}
    assert [name for name in sorted(fields) if f"{name}`" not in f"{TRAINING}{MODELS}"] == []


@pytest.mark.parametrize("kind", sorted(kinds.BULK))
def test_every_option_of_a_kind_of_bulk_work_is_documented(kind: str) -> None:
    options = kinds.KINDS[kind].model_fields[kind].annotation
    assert options is not None
    assert [name for name in options.model_fields if f"`{name}`" not in API] == []


@pytest.mark.parametrize("kind", sorted(kinds.BULK))
def test_every_column_of_a_result_is_documented(kind: str) -> None:
    columns = schema_of(kind, width=1).names
    assert [name for name in columns if f"`{name}`" not in API] == []
