"""When the outcome of a run is sent again to its caller, and when that is given up."""

from workers.core.backoff import pause

# Attempts after the first delivery. Sent in vain, they spread over four hours: longer than queues are long. A message
# that can't even be sent fails for what its caller has written into it, each time alike.
ATTEMPTS = 9
REFUSED_ATTEMPTS = 3
# Seconds.
FIRST_PAUSE = 60.0
LONGEST_PAUSE = 3600.0


def next_pause(attempts: int, *, refused: bool) -> float | None:
    """Return the seconds from the next attempt to the one after it, ``attempts`` having been made; None: give up.

    ``refused``: the last one failed for an error of its own.
    """
    if attempts >= (REFUSED_ATTEMPTS if refused else ATTEMPTS):
        return None
    return pause(attempts + 1, first=FIRST_PAUSE, longest=LONGEST_PAUSE)
