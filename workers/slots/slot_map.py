"""Which run holds which slot of which agent: one map of a pool, seen alike by the scheduler and every agent.

Contract
    Every method is one atomic step on the server (a Lua file each), valid from any number of processes, and answered
    alike when it is repeated: the client repeats a call whose reply was lost, and so may its caller. Every change of a
    lease names its token; a stale token changes nothing. A token starts terraform at most once:
    :meth:`SlotMap.redeem`. Tokens must be fresh, ``secrets.token_hex(16)`` for each acquire and resume.

Invariants
    A slot is held by at most one run, a run holds at most one slot, and slots 1 and 2 hold only plans. Every index
    is what the records say. An agent that drains or is silent is in no index of free slots.

An agent that comes back
    keeps what the map says it holds, also with a new instance id: its reservations, whose directories outlive a
    container, and what it has not redeemed, which can still start. A redeemed lease that no heartbeat names is lost: it
    stays, with ``lost_since`` set, until the control plane has requeued or failed the run.

Times are seconds since the epoch, by the server's clock. All methods raise ``redis.exceptions.RedisError`` when the
server can't be reached: that says nothing about any slot.
"""

import secrets
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

import redis
from redis.exceptions import RedisError

from workers.protocol.errors import Damaged
from workers.protocol.kinds import RunKind
from workers.protocol.leases import AgentRecord, CancelMode, CancelOutcome, HeartbeatReply, Lease, PoolStats
from workers.protocol.programs import Program
from workers.slots import records
from workers.slots.connection import Step, run_together
from workers.slots.keys import SLOT_MAP, PoolKeys
from workers.slots.records import run_id, word
from workers.slots.verbs import FIRST_KEYS, VERBS

WATCH_GAP = 60.0
# Of agents, or of leases: a hundred times what the largest pool in the benchmarks has.
MOST_RECORDS = 100_000


class Ask(NamedTuple):
    """What a run asks for: see :meth:`SlotMap.acquire`."""

    run: str
    kind: RunKind
    token: str
    programs: Sequence[Program] = ()


class SlotMap:
    """The slot map of one pool. ``clock`` replaces the server's clock, for tests."""

    def __init__(self, client: redis.Redis, pool: str, clock: Callable[[], float] | None = None) -> None:
        self._client = client
        self._keys = _keys(pool)
        self._clock = clock

    def _run(self, verb: str, *arguments: str | float) -> Any:
        return VERBS[verb](self._client, self._keys[: FIRST_KEYS.get(verb, 5)], self._now(), *arguments)

    def _now(self) -> str | float:
        return "" if self._clock is None else self._clock()

    # What agents do

    def register(
        self, agent: str, instance_id: str, executing: Sequence[Lease] = (), *, draining: bool = False
    ) -> None:
        """Enter the map, or enter it again: at start, when a heartbeat asks for it, after any lost connection.

        ``executing``: every lease that the agent executes or has a report for, and those whose plan it keeps
        (``RESERVED``); the ones that the map has lost are put back where the slot is free and the run holds no other.
        A reservation brought without ``until`` counts as expired, so that the database decides. ``draining``: the
        agent is stopping. A drain that began earlier goes on.
        """
        brought = [argument for lease in executing for argument in records.restorable(lease)]
        self._run("register", word(agent), word(instance_id), int(draining), *brought)

    def heartbeat(
        self, agent: str, instance_id: str, executing: Sequence[str], reporting: Sequence[str]
    ) -> HeartbeatReply:
        """Send the agent's heartbeat; return what it must know.

        ``executing``: tokens that it is about to redeem, or has redeemed and not finished. ``reporting``:
        finished ones whose report may not have been taken. A redeemed token in neither counts as lost, so a token
        is put into ``executing`` before it is redeemed, and into ``reporting`` in the moment it leaves.
        """
        reply = self._run("heartbeat", agent, instance_id, len(executing), *executing, *reporting)
        if reply is None:
            return HeartbeatReply(registered=False)
        draining, cancels, drop, repeat = reply
        return HeartbeatReply(
            registered=True,
            draining=bool(draining),
            cancels=tuple((token, records.cancel_mode(mode)) for token, mode in records.pairs(cancels)),
            drop=tuple(map(records.text, drop)),
            repeat=tuple(map(records.text, repeat)),
        )

    def redeem(self, agent: str, run: str, token: str) -> bool:
        """Claim the right to start terraform: true for one caller ever, for the agent that holds the lease."""
        return bool(self._run("redeem", agent, run, token, secrets.token_hex(8)))

    # What the control plane does with leases

    def acquire(self, run: str, kind: RunKind, token: str, programs: Sequence[Program] = ()) -> Lease | None:
        """Find a slot for the run and take it; None if there is none. A lease that the run holds is returned as is.

        So compare the token: another one than ``token`` is of another request for this run. ``programs``: the agent
        has one of these; without any, every agent will do. Raises :class:`Damaged` where the run's record can't be
        read.
        """
        step = self._acquire_step(Ask(run, kind, token, programs))
        return records.acquired(run, step.script(self._client, step.keys, *step.arguments))

    def acquire_each(self, asks: Sequence[Ask]) -> dict[str, Lease | None]:
        """Acquire a slot for each of these runs, in this order and in one round trip; return what each got.

        Raises, with every slot given back that was taken, what :meth:`acquire` raises.
        """
        try:
            replies = run_together(self._client, [self._acquire_step(ask) for ask in asks])
            return {ask.run: records.acquired(ask.run, reply) for ask, reply in zip(asks, replies, strict=True)}
        except Exception:
            # The reply to some of them may be lost, or not be there yet. A server that is away now keeps what it has
            # given: reconcile sees it.
            with suppress(RedisError):
                run_together(self._client, [self.release_step(ask.run, ask.token) for ask in asks])
            raise

    def _acquire_step(self, ask: Ask) -> Step:
        programs = (program.word for program in ask.programs)
        keys = self._keys[: FIRST_KEYS["acquire"]]
        return VERBS["acquire"].step(keys, self._now(), run_id(ask.run), ask.kind.value, word(ask.token), *programs)

    def reserve(self, run: str, token: str, until: float) -> bool:
        """Keep the slot of a plan_and_apply for its confirmation, ``until`` that time; its token starts nothing now."""
        return bool(self._run("reserve", run, token, until))

    def resume(self, run: str, token: str, new_token: str) -> Lease | None:
        """Begin the next phase on the slot that the run holds, reserved or running, to be redeemed by ``new_token``.

        None if the lease is not there, was to be cancelled (see its ``cancel``), or its agent is silent. An agent
        that drains still goes on with what it holds.
        """
        reply = self._run("resume", run, token, word(new_token))
        return None if reply is None else records.lease(run, reply)

    def release(self, run: str, token: str) -> bool:
        """End the run's lease, or find that it holds none: its slot is idle. False where it holds another lease."""
        return bool(self._run("release", run, token))

    def release_step(self, run: str, token: str) -> Step:
        """Return :meth:`release` as a step that is run together with others; its reply is 1 for true."""
        return VERBS["release"].step(self._keys[: FIRST_KEYS["release"]], self._now(), run, token)

    def revoke(self, run: str, token: str) -> bool:
        """Let the token of the run's lease start nothing any more. False where it was redeemed, or is not the lease's.

        The lease stays, ``revoked``, until what becomes of the run is stored, and is released then.
        """
        return bool(self._run("revoke", run, token))

    def cancel(self, run: str, mode: CancelMode) -> CancelOutcome:
        """Revoke the run's lease if nothing has started under it, else mark it for its agent to end the phase.

        A lease that was revoked stays until it is released, as for :meth:`revoke`.
        """
        return CancelOutcome(records.text(self._run("cancel", run, mode)))

    # What the control plane does with agents

    def claim_idle(self, count: int, claim: str, among: Sequence[str] | None = None) -> list[str]:
        """Claim up to ``count`` agents whose three slots are all idle, longest idle first, to remove their pods.

        They are given nothing from now on. ``claim`` names the claimer, which gives back what it can't remove. Agents
        that it has claimed before are among those that are returned. With ``among`` only those agents, the first ones
        first.
        """
        names = self._run("claim_idle", count, word(claim), int(among is not None), *(among or ()))
        return [records.text(name) for name in names]

    def take_over(self, agent: str, claim: str, expect: str) -> bool:
        """Take over the claim ``expect`` of an idle agent, whose removal was left half-done; false if it has another.

        The previous claimer can't give the agent back any more.
        """
        return bool(self._run("take_over", agent, word(claim), expect))

    def give_back(self, agent: str, claim: str) -> bool:
        """End a claim: the agent may be given runs again, unless it drains. False if another has claimed it."""
        return bool(self._run("give_back", agent, claim))

    def drain(self, agent: str, *, cordon: bool = False) -> bool:
        """Give the agent no further runs; false if it is unknown.

        ``cordon``: its node takes no pods. A drain that began for another reason stays what it is.
        """
        return bool(self._run("drain", agent, 1, *_cause(cordon=cordon)))

    def undrain(self, agent: str, *, cordon: bool = False) -> bool:
        """Give the agent runs again; false if it is unknown. ``cordon``: only where it drains for its node."""
        return bool(self._run("drain", agent, 0, *_cause(cordon=cordon)))

    def mark_silent(self, older_than: float, gap: float = WATCH_GAP) -> list[str]:
        """Give no runs to agents without a heartbeat for ``older_than`` seconds, until they are heard again.

        Returns all of them, longest silent first. To be called more often than every ``gap`` seconds: where the map is
        new, or the last call was longer ago, Redis was away: for ``older_than`` seconds no agent is marked or returned.
        """
        names = self._run("mark_silent", older_than, gap)
        return [records.text(name) for name in names]

    def watched(self) -> tuple[float, float]:
        """Return the server's time, and since when the heartbeats were watched without a gap.

        Silence before that says nothing: no control plane was there to hear. The time is now where none ever was.
        """
        now, since = self._run("watched")
        return float(now), float(since)

    def deregister(
        self, agent: str, instance_id: str | None = None, *, settled: Collection[str] | None = None
    ) -> list[Lease]:
        """Remove an agent whose processes are known to be gone, and end its leases.

        With ``instance_id``, only that one: a later one with the same name stays. With ``settled``, only if it holds no
        leases but those of these tokens: the others are returned, nothing has changed, and it is called again once it
        is stored what becomes of their runs.
        """
        only = settled is not None
        return records.leases(self._run("deregister", agent, instance_id or "", int(only), *(settled or ())))

    def remove(self) -> None:
        """Remove the map of a pool that was deleted, with whatever is in its place."""
        self._client.delete(*self._keys)

    # What everybody asks

    def find(self, run: str) -> Lease | None:
        """Return the lease of a run, if it holds a slot and its record can be read."""
        record: Any = self._client.hget(self._keys[1], run)
        return None if record is None else records.lease(run, record)

    def agent(self, name: str) -> AgentRecord | None:
        """Return one agent."""
        reply = self._run("agent", name)
        if reply is None:
            return None
        record, score, heartbeat_at, leases = reply
        return records.agent(name, record, score or "", heartbeat_at or "", records.leases(leases))

    def snapshot(self) -> list[AgentRecord]:
        """Return all agents as they are at one moment, by name."""
        return records.agents(self._run("snapshot", MOST_RECORDS))

    def repair(self) -> list[tuple[str, str]]:
        """Remove what no verb writes, and return it: a key's name, and what was in it ('' for all of it).

        Agents may write into their own pool's keys, and what a hostile one wrote must not stay. What it breaks is its
        own pool's: a run whose lease is removed is a run without a lease. A repeated call finds nothing more; what was
        removed is for the log alone.
        """
        reply = self._run("repair", MOST_RECORDS)
        return [
            (SLOT_MAP[number - 1], records.text(name)) for number, name in zip(reply[::2], reply[1::2], strict=True)
        ]

    def stats(self) -> PoolStats:
        """Return the pool's counts, at a cost that does not grow with the pool."""
        return PoolStats(*self._run("stats"))


def snapshots(client: redis.Redis, pools: Sequence[str]) -> dict[str, list[AgentRecord] | Damaged]:
    """Return the agents of several pools, each pool as it is at one moment: one round trip.

    What keeps those of one pool from being read stands in their place.
    """
    steps = [VERBS["snapshot"].step(PoolKeys(pool).slot_map, "", MOST_RECORDS) for pool in pools]
    replies = run_together(client, steps)
    return {
        pool: reply if isinstance(reply, Damaged) else records.agents(reply)
        for pool, reply in zip(pools, replies, strict=True)
    }


@lru_cache(maxsize=1_000)  # pools; to spell them takes as long as a step on the server
def _keys(pool: str) -> tuple[bytes, ...]:
    keys = PoolKeys(pool)
    return (*keys.slot_map, keys.watch)


def _cause(*, cordon: bool) -> tuple[str, ...]:
    return (records.CORDON,) if cordon else ()
