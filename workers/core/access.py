"""What somebody may do over HTTP: whoever asks has an actor and scopes, and every request needs one of them."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from workers.core.approval import Actor


class Scope(StrEnum):
    """A kind of requests: to look, to enqueue runs, to decide about runs."""

    READ = "read"
    RUN = "run"
    DECIDE = "decide"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and for what that suffices. ``refusal`` says why not for more, and what to do."""

    actor: Actor | None
    scopes: frozenset[Scope]
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token beside itself: the program that has it, its scopes, and its end."""

    name: str
    scopes: tuple[Scope, ...]
    created_at: datetime
    expires_at: datetime
    created_by: str | None

    def caller(self, now: datetime) -> Caller | None:
        """Return who asks with it; None after its end."""
        if now >= self.expires_at:
            return None
        allowed = ", ".join(self.scopes)
        return Caller(Actor(f"token:{self.name}"), frozenset(self.scopes), f"its scopes are {allowed}")


def scopes(names: Collection[str]) -> tuple[Scope, ...]:
    """Return the scopes of these names, in their order; words of a later version are none."""
    return tuple(scope for scope in Scope if scope in names)
