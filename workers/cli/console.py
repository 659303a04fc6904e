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
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from workers.protocol.names import CONTROLS

# Exit codes.
SUCCESS, FAILURE, MISUSE, LEFT_WAITING, INTERRUPTED = 0, 1, 2, 3, 130

_PIPE_WIDTH = 250  # nothing is cut or wrapped where a program reads
_NOTHING = "-"
_GAP = 2
_LAST_COLUMN = 16  # the narrowest in which words can be read
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
    console().print(table(columns, rows))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> RenderableType:
    """Return rows as a table whose last column alone is wrapped.

    Where even that is too wide for the console, each row is a paragraph that its first cell begins: no cell is broken.
    """
    cells = [[cell(value) for value in row] for row in rows]
    widths = [max(map(cell_len, [name, *(row[place].plain for row in cells)])) for place, name in enumerate(columns)]
    if sum(widths[:-1]) + min(widths[-1], _LAST_COLUMN) + _GAP * (len(columns) - 1) > console().width:
        return Group(*(paragraph for row in cells for paragraph in _paragraphs(columns, row)))
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for name in columns:
        made.add_column(name, overflow="fold", no_wrap=name != columns[-1])
    for row in cells:
        made.add_row(*row)
    return made


def _paragraphs(columns: Sequence[str], row: Sequence[Text]) -> tuple[RenderableType, RenderableType]:
    first, *others = row
    named = [(name, each) for name, each in zip(columns[1:], others, strict=True) if each.plain != _NOTHING]
    said = Text("  ").join(Text.assemble((f"{name.lower()} ", "dim"), each) for name, each in named)
    return Text(first.plain, style="bold"), Padding(said, (0, 0, 0, _GAP))


def cell(value: object, style: str = "") -> Text:
    """Return the content of a table's cell; ``-`` for nothing."""
    if isinstance(value, Text):
        return value
    return Text(_NOTHING, style="dim") if value in (None, "") else Text(clean(str(value)), style=style)


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
