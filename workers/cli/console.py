"""Printing: results to stdout, errors to stderr, JSON alone on stdout.

Output of Terraform, names and errors are hostile text: nothing in it is markup here, and control characters are
removed.
"""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from functools import cache
from typing import Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from workers.protocol.names import CONTROLS

# Exit codes.
SUCCESS, FAILURE, MISUSE, LEFT_WAITING, INTERRUPTED = 0, 1, 2, 3, 130

_PIPE_WIDTH = 250  # nothing is cut or wrapped where a program reads
_CONTROL = re.compile(f"[{CONTROLS}]")


@cache
def console(*, errors: bool = False) -> Console:
    """Return the console of stdout, or of stderr."""
    terminal = (sys.stderr if errors else sys.stdout).isatty()
    return Console(stderr=errors, markup=False, emoji=False, highlight=False, width=None if terminal else _PIPE_WIDTH)


def is_interactive() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def clean(text: str) -> str:
    """Return ``text`` without control characters; lines and tabs stay."""
    return _CONTROL.sub("\ufffd", text)


def say(text: str, style: str = "", *, errors: bool = False) -> None:
    """Print text as it is, without wrapping it."""
    console(errors=errors).print(Text(clean(text), style=style), soft_wrap=True)


def complain(sentence: str) -> None:
    """Print an error."""
    console(errors=True).print(Text.assemble(("Error: ", "bold red"), clean(sentence)), soft_wrap=True)


def answer(value: Any, sentence: str, *, as_json: bool) -> None:
    """Print what a command did: a value as JSON, or a sentence."""
    if as_json:
        show_json(value)
    else:
        say(sentence)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows as a table."""
    made = table(*columns)
    for row in rows:
        made.add_row(*map(cell, row))
    console().print(made)


def table(*columns: str) -> Table:
    """Return an empty table in the style of all tables here."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def cell(value: object, style: str = "") -> Text:
    """Return the content of a table's cell; ``-`` for nothing."""
    if isinstance(value, Text):
        return value
    return Text("-", style="dim") if value in (None, "") else Text(clean(str(value)), style=style)


def show_json(value: Any, *, indent: int | None = 2) -> None:
    """Print values as one JSON document; without ``indent`` on one line."""
    typer.echo(json.dumps(value, indent=indent, default=_plain))


def _plain(value: Any) -> Any:
    """Return what JSON does not know as something that it knows; times as ISO 8601."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value.isoformat() if isinstance(value, datetime) else str(value)
