"""``migrate``, ``reencrypt``: what an operator runs between two versions, or two keys."""

import typer

from workers.cli.console import answer
from workers.cli.options import AsJson
from workers.cli.system import system
from workers.services.secrets.variables import reencrypt_all

app = typer.Typer()


@app.command()
def migrate(as_json: AsJson = False) -> None:
    """Create the database's tables, or bring them up to this version. Safe to repeat, and from several machines."""
    database = system().database
    database.migrate()
    answer({"database": str(database)}, f"The database {database} is up to date.", as_json=as_json)


@app.command()
def reencrypt(as_json: AsJson = False) -> None:
    """Encrypt all secrets again with the first of TERRASLOT_ENCRYPTION_KEYS. Afterwards the other keys can go."""
    count = reencrypt_all(system())
    said = f"{count} encrypted again: only the first of TERRASLOT_ENCRYPTION_KEYS is needed from now on."
    answer({"reencrypted": count}, said, as_json=as_json)
