"""Formatting for people: a time span in two units, a number with its noun."""

from datetime import datetime


def ago(moment: datetime | None, now: datetime) -> str:
    """Return how long ago ``moment`` was, in up to two units."""
    return "" if moment is None else duration((now - moment).total_seconds())


def duration(seconds: float) -> str:
    """Return a time span in words: ``42s``, ``3m 20s``, ``2h 5m``, ``4d 1h``."""
    left = max(0, round(seconds))
    units: list[str] = []
    for name, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        amount, left = divmod(left, length)
        if amount or (name == "s" and not units):
            units.append(f"{amount}{name}")
    return " ".join(units[:2])


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: ``no agents``, ``1 agent``, ``2 agents``. ``many``: a plural other than with s."""
    return f"{number or 'no'} {one if number == 1 else many or f'{one}s'}"
