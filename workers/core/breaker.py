"""When a server that accepts calls and does not answer them is asked: after some calls in vain, only now and then.

Whoever asks meanwhile fails at once instead of after a time limit. Times are seconds of any clock that never goes back.
"""

from dataclasses import dataclass, replace

from workers.core.backoff import pause

# Calls in a row without an answer: one or two may be a lost connection, or a restart.
THRESHOLD = 3
# A call that fails sooner costs those who wait for it nothing.
SLOW = 0.5
FIRST_PAUSE = 10.0
LONGEST_PAUSE = 60.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """How many calls in a row had no answer, since when, and when the next call may be made."""

    unanswered: int = 0
    since: float = 0.0
    ask_at: float = 0.0

    @property
    def is_open(self) -> bool:
        """Whether calls are held back."""
        return self.unanswered >= THRESHOLD

    def may_ask(self, now: float) -> bool:
        """Whether a call may be made."""
        return not self.is_open or now >= self.ask_at

    def asking(self, now: float) -> "Breaker":
        """Return the state while a call is made: of those that are held back, one at a time tries."""
        return replace(self, ask_at=now + LONGEST_PAUSE) if self.is_open else self

    def missed(self, now: float, began: float, jitter: float = 1.0) -> "Breaker":
        """Return the state after a call that ``began`` then and had no answer. ``jitter`` multiplies the pause.

        Calls that were made before the last one that counted say nothing new: many may have been made together.
        """
        if now - began < SLOW or (self.is_open and began < self.since):
            return self
        unanswered = self.unanswered + 1
        wait = pause(max(1, unanswered - THRESHOLD + 1), first=FIRST_PAUSE, longest=LONGEST_PAUSE)
        return Breaker(unanswered, now, now + wait * jitter)
