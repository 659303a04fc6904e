"""Until when a plan waits for a person: its extension, and when people are reminded of it. Pure."""

from datetime import datetime, timedelta

from workers.protocol.errors import InvalidRequest

# The longest ``confirm_timeout``, and how long a task's result is kept: a plan waits no longer from any moment on.
LONGEST_WAIT = timedelta(days=30)
_REMIND_BEFORE = timedelta(hours=1)
DEFAULT_EXTENSION = 4 * 3600.0


def remind_at(until: datetime, wait: timedelta) -> datetime:
    """Return when people are reminded that a wait ends: an hour before, or in the last quarter of a short one."""
    return until - min(_REMIND_BEFORE, wait / 4)


def extended(until: datetime, now: datetime, seconds: float) -> datetime:
    """Return the end of a wait that lasts ``seconds`` longer than ``until``. Raises :class:`InvalidRequest`."""
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, int | float)
        or not 1 <= seconds <= LONGEST_WAIT.total_seconds()
    ):
        raise InvalidRequest(
            f"A wait can't be extended by {seconds!r} seconds: 1 s to {LONGEST_WAIT.days} days can be."
        )
    later = until + timedelta(seconds=seconds)
    if later > now + LONGEST_WAIT:
        raise InvalidRequest(
            f"A plan waits {LONGEST_WAIT.days} days at most, and would wait until {later:%Y-%m-%d %H:%M} UTC."
        )
    return later
