"""Reads what the slot map stores: records of words, as the files in ``lua/`` write them, into the protocol's values.

Words after the known ones belong to a later version, and are left alone.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from workers.protocol.errors import InvalidRequest
from workers.protocol.kinds import RunKind
from workers.protocol.leases import AgentRecord, CancelMode, Lease, SlotState
from workers.protocol.names import RUN_ID

Text = bytes | str  # which of the two depends on the client's decode_responses
_NONE = "-"
_WORD = re.compile(r"[!-~]+")
_KINDS = {kind.value: kind for kind in RunKind}
_STATES = {state.value: state for state in SlotState}
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
    return reply if isinstance(reply, str) else reply.decode()


def pairs(replies: Sequence[Text]) -> Iterator[tuple[str, str]]:
    """Return a flat reply's pairs: name and record, or member and score."""
    words = [text(reply) for reply in replies]
    return zip(words[::2], words[1::2], strict=True)


def lease(run: str, record: Text) -> Lease:
    """Return the lease of a run from its record."""
    kind, agent, slot, token, state, since, redeemer, until, cancel, lost_since, *_ = text(record).split(" ")
    return Lease(
        run,
        _KINDS[kind],
        agent,
        int(slot),
        token,
        _STATES[state],
        float(since),
        redeemer != _NONE,
        _time(until),
        None if cancel == _NONE else cancel_mode(cancel),
        _time(lost_since),
    )


def leases(replies: Sequence[Text]) -> list[Lease]:
    """Return the leases of a flat reply of runs and records, without the way back from slots to runs."""
    return [lease(run, record) for run, record in pairs(replies) if "/" not in run]


def agent(name: str, record: Text, score: Text, heartbeat_at: Text, held: Iterable[Lease]) -> AgentRecord:
    """Return the agent of its record, its score among the agents' free slots, and the leases that it holds."""
    instance_id, draining, silent, registered_at, claim, *_ = text(record).split(" ")
    taken = tuple(sorted(held, key=lambda lease: lease.slot))
    return AgentRecord(
        name=name,
        instance_id=instance_id,
        draining=draining == "1",
        silent=silent == "1",
        registered_at=float(registered_at),
        heartbeat_at=float(heartbeat_at),
        idle_since=None if taken else abs(float(score)),
        leases=taken,
        claim=None if claim == _NONE else claim,
    )


def cancel_mode(value: str) -> CancelMode:
    """Return how a phase is to be ended; an unknown way, of a newer version, is an interrupt, which keeps the state."""
    return CancelMode(value) if value in _MODES else CancelMode.INTERRUPT


def _time(value: str) -> float | None:
    return None if value == _NONE else float(value)
