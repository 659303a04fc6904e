"""``token``: what lets programs use the HTTP API."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from workers.cli import completion
from workers.cli.console import answer, console, say, show_json, show_table
from workers.cli.options import AsJson, seconds
from workers.cli.system import actor, system
from workers.core.access import Scope, Token
from workers.services.formatting import ago
from workers.services.secrets import tokens

app = typer.Typer(help="Manage tokens: what lets programs use the HTTP API.", no_args_is_help=True)

TokenName = Annotated[
    str,
    typer.Argument(
        metavar="TOKEN", help="A token's name: the program's that has it.", autocompletion=completion.tokens
    ),
]
_SCOPES = "What it may do: read, run (enqueue), decide (confirm, discard, cancel, extend); may be repeated."
_QUARTER = "90d"


@app.command()
def create(
    name: TokenName,
    scope: Annotated[list[Scope], typer.Option("--scope", metavar="SCOPE", help=_SCOPES)],
    lasts: Annotated[int, typer.Option("--for", metavar="TIME", parser=seconds, help="When it ends: 12h, 90d.")] = (
        _QUARTER  # type: ignore[assignment] # parsed like what is given
    ),
    as_json: AsJson = False,
) -> None:
    """Make a token and print it, this once."""
    text, token = tokens.create(system(), name, scope, timedelta(seconds=lasts), by=actor())
    if as_json:
        show_json({"token": text, **asdict(token)})
        return
    until = f"{token.expires_at:%Y-%m-%d %H:%M} UTC"
    say(f"The token {name} may {', '.join(token.scopes)} until {until}. It is shown this once:", errors=True)
    console().print(text, soft_wrap=True)


@app.command("list")
def list_tokens(as_json: AsJson = False) -> None:
    """List all tokens; none can be shown again."""
    found = tokens.every(system())
    if as_json:
        show_json(found)
    elif not found:
        say("No tokens.")
    else:
        now = datetime.now(UTC)
        show_table(("TOKEN", "SCOPES", "ENDS", "AGE", "MADE BY"), (_row(token, now) for token in found))


@app.command()
def revoke(name: TokenName, as_json: AsJson = False) -> None:
    """Let a token be good for nothing from now on."""
    tokens.revoke(system(), name)
    answer({"name": name, "revoked": True}, f"The token {name} is revoked.", as_json=as_json)


def _row(token: Token, now: datetime) -> tuple[object, ...]:
    ends = "has ended" if token.expires_at <= now else f"{token.expires_at:%Y-%m-%d %H:%M} UTC"
    return token.name, ", ".join(token.scopes), ends, ago(token.created_at, now), token.created_by
