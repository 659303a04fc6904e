"""``reseal``: everything that is kept secret, sealed with the first of the keys, so that the others can go."""

from __future__ import annotations

import typer

from workers.cli.console import say, show_json
from workers.cli.options import AsJson
from workers.cli.system import system
from workers.services.sensitive import seal_anew

app = typer.Typer()


@app.command()
def reseal(as_json: AsJson = False) -> None:
    """Seal all secrets anew with the first of TERRASLOT_ENCRYPTION_KEYS. Afterwards the other keys can go."""
    count = seal_anew(system())
    if as_json:
        show_json({"resealed": count})
    else:
        say(f"{count} sealed anew; the first of TERRASLOT_ENCRYPTION_KEYS is all that is needed now.")
