"""Reads what the slot map stores: records of words, as the files in ``lua/`` write them, into the protocol's values.

Words after the known ones belong to a later version, and are left alone.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from workers.protocol.errors import Damaged, InvalidRequest
from workers.protocol.kinds import RunKind
from workers.protocol.leases import AgentRecord, CancelMode, Lease, SlotState
from workers.protocol.names import AGENT, RUN_ID

Text = bytes | str  # which of the two depends on the client's decode_responses
CORDON = "cordon"
_NONE, _REVOKED = "-", "revoked"
_WORD = re.compile(r"[!-~]+")
_SLOTS = {"0": 0, "1": 1, "2": 2}
_NO_TIME = 1e11  # seconds since the epoch, in the year 5138: as in lua/repair.lua
_MODES = frozenset(CancelMode)


def word(value: str) -> str:
    """Return the value if a record can hold it; raises :class:`InvalidRequest` for spaces, nothing, or no ASCII."""
    if not _WORD.fullmatch(value):
        raise InvalidRequest(f"{value!r} can't be kept in the slot map: it must be one word of ASCII characters.")
    return value


def run_id(value: str) -> str:
    """Return the value if it can be a run's id, which is never the name of a slot; raises :class:`InvalidRequest`."""
    if not RUN_ID.fullmatch(value):
        raise InvalidRequest(f"{value!r} is not a run's id.")
    return value


def text(reply: Text) -> str:
    """Return a reply as text."""
    return reply if isinstance(reply, str) else reply.decode(errors="replace")


def pairs(replies: Sequence[Text]) -> Iterator[tuple[str, str]]:
    """Return a flat reply's pairs: name and record, or member and score."""
    words = [text(reply) for reply in replies]
    return zip(words[::2], words[1::2], strict=True)


def lease(run: str, record: Text) -> Lease | None:
    """Return the lease of a run from its record; None where that can't be read.

    Agents may write into their own pool's keys, and a newer version may know another kind of run: one such record must
    not keep the others from being read. :meth:`~workers.slots.slot_map.SlotMap.repair` removes what no verb writes.
    """
    try:
        kind, agent, slot, token, state, since, redeemer, until, cancel, lost_since, *_ = text(record).split(" ")
        return Lease(
            run_id(run),
            RunKind(kind),
            agent,
            _SLOTS[slot],
            token,
            SlotState(state),
            _time(since),
            redeemer not in (_NONE, _REVOKED),
            None if until == _NONE else _time(until),
            None if cancel == _NONE else cancel_mode(cancel),
            None if lost_since == _NONE else _time(lost_since),
            redeemer == _REVOKED,
        )
    except (InvalidRequest, KeyError, ValueError):
        return None


def acquired(run: str, reply: Text | Damaged | None) -> Lease | None:
    """Return the lease that a run was given; None where it was given none. Raises :class:`Damaged`."""
    if isinstance(reply, Damaged):
        raise reply
    found = None if reply is None else lease(run, reply)
    if reply is not None and found is None:
        raise Damaged(f"The lease of run {run} can't be read: a cycle of its pool removes it.")
    return found


def restorable(lease: Lease) -> tuple[str | float, ...]:
    """Return a lease as an agent brings it back: what ``register`` takes of each."""
    kept_until = _NONE if lease.state is not SlotState.RESERVED else lease.until or lease.since
    return (run_id(lease.run), lease.kind, lease.slot, word(lease.token), lease.since, int(lease.redeemed), kept_until)


def leases(replies: Sequence[Text]) -> list[Lease]:
    """Return the leases of a flat reply of runs and records: those that can be read."""
    return [found for run, record in pairs(replies) if "/" not in run and (found := lease(run, record)) is not None]


def agent(name: str, record: Text, score: Text, heartbeat_at: Text, held: Iterable[Lease]) -> AgentRecord | None:
    """Return the agent of its record, its score among the agents' free slots, and the leases that it holds.

    None where that can't be read, as for a lease.
    """
    try:
        if not AGENT.fullmatch(name):
            return None
        instance_id, draining, silent, registered_at, claim, *later = text(record).split(" ")
        taken = tuple(sorted(held, key=lambda lease: lease.slot))
        return AgentRecord(
            name=name,
            instance_id=instance_id,
            draining=draining == "1",
            silent=silent == "1",
            registered_at=_time(registered_at),
            heartbeat_at=_time(text(heartbeat_at)),
            idle_since=None if taken else _time(text(score).removeprefix("-")),
            leases=taken,
            claim=None if claim == _NONE else claim,
            cordoned=draining == "1" and later[:1] == [CORDON],
        )
    except ValueError:
        return None


def agents(reply: Sequence[Sequence[Text]]) -> list[AgentRecord]:
    """Return all agents of a snapshot's reply by name: those that can be read."""
    records, scores, heartbeats, held = reply
    leases_of = defaultdict[str, list[Lease]](list)
    for lease in leases(held):
        leases_of[lease.agent].append(lease)
    score, heard = dict(pairs(scores)), dict(pairs(heartbeats))
    found = (
        agent(name, record, score.get(name, ""), heard.get(name, ""), leases_of[name])
        for name, record in sorted(pairs(records))
    )
    return [agent for agent in found if agent is not None]


def cancel_mode(value: str) -> CancelMode:
    """Return how a phase is to be ended; an unknown way, of a newer version, is an interrupt, which keeps the state."""
    return CancelMode(value) if value in _MODES else CancelMode.INTERRUPT


def _time(value: str) -> float:
    time = float(value)
    if not 0 <= time < _NO_TIME:
        raise ValueError(value)
    return time
