"""A measured figure, beside what it should be. Every benchmark returns such rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. ``target`` says in words what it should be; ``ok``, whether it is."""

    name: str
    value: float
    unit: str
    target: str = ""
    ok: bool = True

    def __str__(self) -> str:
        return table([self])


def at_most(name: str, value: float, limit: float, unit: str) -> Row:
    return Row(name, value, unit, f"<= {limit:g}", value <= limit)


def at_least(name: str, value: float, limit: float, unit: str) -> Row:
    return Row(name, value, unit, f">= {limit:g}", value >= limit)


def table(rows: Iterable[Row]) -> str:
    """Return the rows as text, one a line."""
    lines = [(row.name, f"{row.value:,.2f}", row.unit, row.target, _verdict(row)) for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join(
        f"{name:{widths[0]}}  {value:>{widths[1]}} {unit:{widths[2]}}  {target:{widths[3]}}  {verdict}".rstrip()
        for name, value, unit, target, verdict in lines
    )


def _verdict(row: Row) -> str:
    return "" if not row.target else "ok" if row.ok else "MISSED"
