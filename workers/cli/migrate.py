"""``migrate``: the database's tables, brought up to this version. An embedded system does it by itself."""

from __future__ import annotations

import typer

from workers.cli.console import say, show_json
from workers.cli.options import AsJson
from workers.cli.system import system

app = typer.Typer()


@app.command()
def migrate(as_json: AsJson = False) -> None:
    """Create the database's tables, or bring them up to this version. Safe to repeat, and from several machines."""
    database = system().database
    database.migrate()
    if as_json:
        show_json({"database": str(database)})
    else:
        say(f"The database {database} is up to date.")
