"""``pool``: the pools, their limits, and what is done with them."""

import typer

from workers.cli.pool import changes, operations, show

app = typer.Typer(help="Manage pools.", no_args_is_help=True)
for part in (show, changes, operations):
    app.add_typer(part.app)
