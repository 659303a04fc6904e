"""A line of a run's log."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of output, without its line feed. ``at``: when it was printed, in seconds since the epoch.

    ``id`` is its place in the log, to go on reading from there; the log gives it. ``attempt``: of its run, from 1.
    ``number``: its place in the output of its phase, from 1. Both are 0 where they are not known.
    """

    phase: str
    text: str
    at: float
    id: str = ""
    attempt: int = 0
    number: int = 0
