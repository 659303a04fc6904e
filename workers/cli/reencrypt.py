"""``reencrypt``: everything that is kept secret, encrypted with the first of the keys, so that the others can go."""

from __future__ import annotations

import typer

from workers.cli.console import say, show_json
from workers.cli.options import AsJson
from workers.cli.system import system
from workers.services.secrets.variables import reencrypt_all

app = typer.Typer()


@app.command()
def reencrypt(as_json: AsJson = False) -> None:
    """Encrypt all secrets anew with the first of TERRASLOT_ENCRYPTION_KEYS. Afterwards the other keys can go."""
    count = reencrypt_all(system())
    if as_json:
        show_json({"reencrypted": count})
    else:
        say(f"{count} encrypted anew; the first of TERRASLOT_ENCRYPTION_KEYS is all that is needed now.")
