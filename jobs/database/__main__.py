"""``python -m jobs.database``: the schema, and the first key of an installation."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from jobs import command_line, database, rights, secret_files, settings
from jobs.ledger import projects
from jobs.rights import Scope

app = command_line.app(__doc__)


@app.command("migrate")
def migrate() -> None:
    """Bring the schema up to date."""
    database.migrate(settings.get().database_url)


@app.command("ensure-key")
def ensure_key(
    project: Annotated[
        str, typer.Option(help="The project that the key is for.")
    ] = rights.OPERATORS,
    scope: Annotated[
        list[Scope] | None,
        typer.Option(
            "--scope",
            help="What the key may do. May be given several times; default: everything, but "
            "`operate` for a key of the project `default` alone.",
        ),
    ] = None,
) -> int:
    """Make the key in NIGHTSHIFT_API_KEY, or in its _FILE, valid for a project."""
    key = secret_files.read("NIGHTSHIFT_API_KEY")
    if not key:
        sys.stderr.write(
            "ensure-key: set NIGHTSHIFT_API_KEY to the key to make valid, "
            "or NIGHTSHIFT_API_KEY_FILE to a file that holds it\n"
        )
        return command_line.BAD_USAGE
    scopes = scope or rights.default_scopes(project)
    engine = database.connect(settings.get().database_url, pool_size=1)
    with database.sessions(engine).begin() as session:
        valid = projects.ensure_key(session, project_id=project, key=key, scopes=scopes)
    engine.dispose()
    if not valid:
        sys.stderr.write(
            "ensure-key: this key was revoked or has expired, and stays so: choose another one\n"
        )
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    return command_line.run(app, arguments, name="python -m jobs.database")


if __name__ == "__main__":
    sys.exit(main())
