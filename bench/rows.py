"""A measured figure, beside what it should be. Every benchmark returns such rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# A busy machine misses a target by a little; what misses one by more is a regression.
TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. ``at_most`` and ``at_least``: what it should be, if that is said."""

    name: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def target(self) -> str:
        """What it should be, in words; nothing where no more than the figure is wanted."""
        if self.at_most is not None:
            return f"<= {self.at_most:g}"
        return "" if self.at_least is None else f">= {self.at_least:g}"

    @property
    def missed_by(self) -> float:
        """By which part of its target it misses it; 0 where it does not."""
        if self.at_most is not None:
            return max(0.0, self.value - self.at_most) / self.at_most
        return 0.0 if self.at_least is None else max(0.0, self.at_least - self.value) / self.at_least

    def as_json(self) -> dict[str, Any]:
        """Return what ``bench/results.json`` holds of it."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "target": self.target,
            "ok": not self.missed_by,
        }

    def __str__(self) -> str:
        return table([self])


def at_most(name: str, value: float, limit: float, unit: str) -> Row:
    return Row(name, value, unit, at_most=limit)


def at_least(name: str, value: float, limit: float, unit: str) -> Row:
    return Row(name, value, unit, at_least=limit)


def share(effort: float, count: int, least: int = 1) -> int:
    """Return a part of a number of repetitions or things: all of them, unless the test only sees them work."""
    return max(least, round(count * effort))


def missed(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that miss their target by more than :data:`TOLERANCE`."""
    return [row for row in rows if row.missed_by > TOLERANCE]


def table(rows: Iterable[Row]) -> str:
    """Return the rows as text, one a line."""
    lines = [(row.name, f"{row.value:,.2f}", row.unit, row.target, _verdict(row)) for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join(
        f"{name:{widths[0]}}  {value:>{widths[1]}} {unit:{widths[2]}}  {target:{widths[3]}}  {verdict}".rstrip()
        for name, value, unit, target, verdict in lines
    )


def _verdict(row: Row) -> str:
    if not row.target:
        return ""
    return f"MISSED by {row.missed_by:.0%}" if row.missed_by else "ok"
