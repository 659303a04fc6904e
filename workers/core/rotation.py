"""When one credential of a pool follows another.

Rotation is by overlap (F27). A new credential is issued and published beside the old one; agents that
connect from then on use the new one; after :data:`OVERLAP` every agent has seen it, what still uses the old one is
disconnected and connects again with the new; and the old one is retired when nobody uses it any more, nor is about to
come back with it. No agent is restarted, and none is ever without a credential that works.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

# How long a changed Secret may take to reach every agent, in seconds: a kubelet takes up to two minutes.
OVERLAP = 300.0
# How long an agent that was disconnected may be between two connections, in seconds, and show nowhere: it tries again
# at growing intervals of up to half a minute.
RECONNECT = 60.0


@dataclass(frozen=True, slots=True)
class Credential:
    """One generation of a pool's credential. Times are seconds since the epoch."""

    pool: str
    generation: int
    created_at: float
    disconnected_at: float | None = None

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
    """Close what is connected with this generation, so that it connects again with the newest."""

    credential: Credential


@dataclass(frozen=True, slots=True)
class Retire:
    """Remove this generation: nobody uses it any more."""

    credential: Credential


Step = Issue | Disconnect | Retire


def rotation(
    credentials: Sequence[Credential], in_use: Collection[str], now: float, *, max_age: float, wanted: bool = False
) -> list[Step]:
    """Return what a pool's credentials need at ``now``.

    ``in_use`` are the names of users with a connection. A new generation is due when there is none, when the newest
    is older than ``max_age`` seconds, or when somebody ``wanted`` it; one rotation ends before the next begins.
    """
    if not credentials:
        return [Issue(1)]
    *older, newest = sorted(credentials, key=lambda credential: credential.generation)
    if not older:
        due = wanted or now - newest.created_at > max_age
        return [Issue(newest.generation + 1)] if due else []
    if now - newest.created_at < OVERLAP:
        return []
    return [step for credential in older if (step := _end_of(credential, in_use, now)) is not None]


def encrypting_generation(credentials: Sequence[Credential], now: float) -> int:
    """Return the generation whose payload key every agent has: the newest that is older than the overlap."""
    known = [credential for credential in credentials if now - credential.created_at >= OVERLAP]
    if known:
        return max(credential.generation for credential in known)
    return min(credential.generation for credential in credentials)


def _end_of(credential: Credential, in_use: Collection[str], now: float) -> Step | None:
    quiet = math.inf if credential.disconnected_at is None else now - credential.disconnected_at
    if credential.username in in_use:
        return Disconnect(credential) if quiet >= OVERLAP else None
    return Retire(credential) if quiet >= RECONNECT else None
