"""When one credential of a pool follows another.

Rotation is by overlap (F27). A new credential is issued and published beside the old one; an agent that connects from
then on uses the new one; after :data:`OVERLAP` every agent has the new one, and connections that still use the old one
are closed, so that their agents connect with the new one; the old one is retired when no connection uses it, and none
may be about to. No agent is restarted, and each always has a credential that works.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

# How long a changed Secret may take to reach every agent, in seconds: a kubelet's sync period and the lifetime of its
# cache are a minute each; twice that, and a margin.
OVERLAP = 300.0
# How long an agent that was disconnected may be between two connections, in seconds: it connects again after growing
# intervals of up to half a minute.
RECONNECT = 60.0
# What agents may do on Redis: 1 before 0.2, which let them do more than they need. An older credential keeps its rules.
RULES = 2


@dataclass(frozen=True, slots=True)
class Credential:
    """One generation of a pool's credential. Times are seconds since the epoch."""

    pool: str
    generation: int
    created_at: float
    disconnected_at: float | None = None
    rules: int = RULES

    @property
    def username(self) -> str:
        """The Redis user of this generation."""
        return f"ts-{self.pool}-{self.generation}"


@dataclass(frozen=True, slots=True)
class Issue:
    """Create this generation and publish it."""

    generation: int


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the connections that use this generation, so that their agents connect again with the newest."""

    credential: Credential


@dataclass(frozen=True, slots=True)
class Retire:
    """Remove this generation: no agent uses it any more."""

    credential: Credential


Step = Issue | Disconnect | Retire


def rotation(
    credentials: Sequence[Credential],
    in_use: Collection[str],
    now: float,
    *,
    max_age: float,
    requested: bool = False,
    older_agents: bool = False,
) -> list[Step]:
    """Return what a pool's credentials need at ``now``.

    ``in_use`` are the names of users with a connection. A new generation is due when there is none, when the newest
    is older than ``max_age`` seconds, when it is ``requested``, or when its rules are old and no ``older_agents``
    are left that need them; one rotation ends before the next begins.
    """
    if not credentials:
        return [Issue(1)]
    *older, newest = sorted(credentials, key=lambda credential: credential.generation)
    if not older:
        narrower = newest.rules < RULES and not older_agents
        due = requested or narrower or now - newest.created_at > max_age
        return [Issue(newest.generation + 1)] if due else []
    if now - newest.created_at < OVERLAP:
        return []
    return [step for credential in older if (step := _end_of(credential, in_use, now)) is not None]


def encrypting_generation(credentials: Sequence[Credential], now: float) -> int:
    """Return the generation whose payload key every agent has: the newest that is older than the overlap."""
    known = [credential.generation for credential in credentials if now - credential.created_at >= OVERLAP]
    return max(known, default=min(credential.generation for credential in credentials))


def _end_of(credential: Credential, in_use: Collection[str], now: float) -> Step | None:
    quiet = math.inf if credential.disconnected_at is None else now - credential.disconnected_at
    if credential.username in in_use:
        return Disconnect(credential) if quiet >= OVERLAP else None
    return Retire(credential) if quiet >= RECONNECT else None
