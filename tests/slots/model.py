"""What the slot map means, in plain Python: the same verbs on dictionaries, written for reading and not for speed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from workers.protocol.kinds import RunKind
from workers.protocol.leases import AgentRecord, CancelMode, CancelOutcome, HeartbeatReply, Lease, PoolStats, SlotState
from workers.protocol.programs import Program
from workers.protocol.version import programs_of

RUNNING, RESERVED = SlotState.RUNNING, SlotState.RESERVED
GAP = 60.0


@dataclass
class Agent:
    instance_id: str
    registered_at: float
    heartbeat_at: float
    idle_since: float
    draining: bool = False
    cordoned: bool = False
    silent: bool = False
    claim: str | None = None
    runs: list[str | None] = field(default_factory=lambda: [None, None, None])

    @property
    def accepts(self) -> bool:
        return not (self.draining or self.silent or self.claim)

    @property
    def taken(self) -> int:
        return sum(run is not None for run in self.runs)


class Model:
    def __init__(self) -> None:
        self.now = 0.0
        self.agents: dict[str, Agent] = {}
        self.leases: dict[str, Lease] = {}
        self.watched_since: float | None = None
        self.watched_at = 0.0

    # What agents do

    def register(
        self, agent: str, instance_id: str, executing: Sequence[Lease] = (), *, draining: bool = False
    ) -> None:
        record = self.agents.setdefault(agent, Agent(instance_id, self.now, self.now, self.now))
        if record.instance_id != instance_id:
            record.instance_id, record.registered_at = instance_id, self.now
        record.heartbeat_at, record.silent, record.draining = self.now, False, record.draining or draining
        record.cordoned = record.cordoned and not draining
        for brought in executing:
            fits = brought.slot == 0 or brought.kind is RunKind.PLAN
            if brought.run not in self.leases and record.runs[brought.slot] is None and fits:
                until = (brought.until or brought.since) if brought.state is RESERVED else None
                lease = replace(brought, agent=agent, since=min(brought.since, self.now), until=until)
                self.leases[brought.run] = replace(lease, cancel=None, lost_since=None, revoked=False)
                record.runs[brought.slot] = brought.run
            held = self.leases.get(brought.run)
            ours = held and (held.agent, held.token) == (agent, brought.token)
            if held and ours and brought.redeemed and not held.revoked:
                self.leases[brought.run] = replace(held, redeemed=True)

    def heartbeat(
        self, agent: str, instance_id: str, executing: Sequence[str], reporting: Sequence[str]
    ) -> HeartbeatReply:
        record = self.agents.get(agent)
        if record is None or record.instance_id != instance_id:
            return HeartbeatReply(registered=False)
        record.heartbeat_at, record.silent = self.now, False
        running = [self.leases[run] for run in record.runs if run and self._executable(run)]
        for lease in running:
            lost = lease.redeemed and lease.token not in {*executing, *reporting}
            since = (lease.lost_since if lease.lost_since is not None else self.now) if lost else None
            self.leases[lease.run] = replace(lease, lost_since=since)
        tokens = {lease.token for lease in running}
        return HeartbeatReply(
            registered=True,
            draining=record.draining or record.claim is not None,
            cancels=tuple((lease.token, lease.cancel) for lease in running if lease.cancel),
            drop=tuple(token for token in executing if token not in tokens),
            repeat=tuple(token for token in reporting if token in tokens),
        )

    def _executable(self, run: str) -> bool:
        return self.leases[run].state is RUNNING and not self.leases[run].revoked

    def redeem(self, agent: str, run: str, token: str) -> bool:
        lease = self._held(run, token)
        if lease is None or lease.agent != agent or not self._executable(run) or lease.redeemed:
            return False
        self.leases[run] = replace(lease, redeemed=True)
        return True

    # What the control plane does with leases

    def acquire(self, run: str, kind: RunKind, token: str, programs: Sequence[Program] = ()) -> Lease | None:
        if run in self.leases:
            return self.leases[run]
        suits = {name for name, agent in self.agents.items() if {*programs_of(agent.instance_id)} & {*programs}}
        for slots in [(1, 2), (0,)] if kind is RunKind.PLAN else [(0,)]:
            agents = [
                name
                for name, agent in self.agents.items()
                if agent.accepts and any(agent.runs[slot] is None for slot in slots)
                if not programs or name in suits
            ]
            if agents:
                agent = max(agents, key=self._preference)
                slot = next(slot for slot in slots if self.agents[agent].runs[slot] is None)
                self.agents[agent].runs[slot] = run
                self.leases[run] = Lease(run, kind, agent, slot, token, RUNNING, self.now)
                return self.leases[run]
        return None

    def _preference(self, name: str) -> tuple[object, ...]:
        """Busy agents first, then those that cost no free slot 0, then the shortest idle."""
        agent = self.agents[name]
        taken = [agent.runs[slot] is not None for slot in (0, 2, 1)]
        return sum(taken), taken, 0 if any(taken) else agent.idle_since, name

    def reserve(self, run: str, token: str, until: float) -> bool:
        lease = self._held(run, token)
        if lease is None or lease.kind is not RunKind.PLAN_AND_APPLY:
            return False
        since = lease.since if lease.state is RESERVED else self.now
        self.leases[run] = replace(lease, state=RESERVED, since=since, until=until, lost_since=None)
        return True

    def resume(self, run: str, token: str, new_token: str) -> Lease | None:
        lease = self.leases.get(run)
        if lease and lease.token == new_token and lease.state is RUNNING:
            return lease
        if lease is None or lease.token != token or lease.cancel or lease.revoked or self.agents[lease.agent].silent:
            return None
        self.leases[run] = Lease(run, lease.kind, lease.agent, lease.slot, new_token, RUNNING, self.now)
        return self.leases[run]

    def release(self, run: str, token: str) -> bool:
        if lease := self._held(run, token):
            self._end(lease)
        return run not in self.leases

    def revoke(self, run: str, token: str) -> bool:
        lease = self._held(run, token)
        if lease is None or lease.redeemed:
            return False
        self.leases[run] = replace(lease, revoked=True)
        return True

    def cancel(self, run: str, mode: CancelMode) -> CancelOutcome:
        lease = self.leases.get(run)
        if lease is None:
            return CancelOutcome.ABSENT
        if lease.state is RESERVED or not lease.redeemed:
            self.leases[run] = replace(lease, redeemed=False, revoked=True)
            return CancelOutcome.REVOKED
        self.leases[run] = replace(lease, cancel=CancelMode.KILL if lease.cancel is CancelMode.KILL else mode)
        return CancelOutcome.REQUESTED

    def _held(self, run: str, token: str) -> Lease | None:
        lease = self.leases.get(run)
        return lease if lease and lease.token == token else None

    def _end(self, lease: Lease) -> None:
        del self.leases[lease.run]
        agent = self.agents[lease.agent]
        agent.runs[lease.slot] = None
        if not agent.taken:
            agent.idle_since = self.now

    # What the control plane does with agents

    def claim_idle(self, count: int, claim: str, among: Sequence[str] | None = None) -> list[str]:
        idle = [name for name, agent in self.agents.items() if not agent.taken]
        longest = sorted(idle, key=lambda name: (self.agents[name].idle_since, name))
        meant = longest if among is None else [name for name in among if name in idle]
        mine = [name for name in meant if self.agents[name].claim == claim]
        chosen = [*mine, *(name for name in meant if self.agents[name].accepts)][: max(0, count)]
        for name in chosen:
            self.agents[name].claim = claim
        return [name for name in meant if name in chosen]

    def take_over(self, agent: str, claim: str, expect: str) -> bool:
        record = self.agents.get(agent)
        if record is None or record.claim not in (expect, claim) or record.taken:
            return False
        record.claim = claim
        return True

    def give_back(self, agent: str, claim: str) -> bool:
        record = self.agents.get(agent)
        if record is None or record.claim not in (claim, None):
            return False
        record.claim = None
        return True

    def drain(self, agent: str, *, cordon: bool = False) -> bool:
        return self._set_draining(agent, draining=True, cordon=cordon)

    def undrain(self, agent: str, *, cordon: bool = False) -> bool:
        return self._set_draining(agent, draining=False, cordon=cordon)

    def _set_draining(self, agent: str, *, draining: bool, cordon: bool) -> bool:
        record = self.agents.get(agent)
        if record and not (cordon and record.draining and not record.cordoned):
            record.draining, record.cordoned = draining, draining and cordon
        return record is not None

    def mark_silent(self, older_than: float, gap: float = GAP) -> list[str]:
        if self.watched_since is None or self.now - self.watched_at > gap:
            self.watched_since = self.now
        self.watched_at = self.now
        if self.now - self.watched_since < older_than:
            return []
        silent = [name for name, agent in self.agents.items() if agent.heartbeat_at < self.now - older_than]
        for name in silent:
            self.agents[name].silent = True
        return sorted(silent, key=lambda name: (self.agents[name].heartbeat_at, name))

    def watched(self) -> tuple[float, float]:
        return self.now, self.now if self.watched_since is None else self.watched_since

    def deregister(
        self, agent: str, instance_id: str | None = None, *, settled: Collection[str] | None = None
    ) -> list[Lease]:
        record = self.agents.get(agent)
        if record is None or instance_id not in (None, record.instance_id):
            return []
        held = [self.leases[run] for run in record.runs if run]
        if settled is not None and (left := [lease for lease in held if lease.token not in settled]):
            return left
        del self.agents[agent]
        for lease in held:
            del self.leases[lease.run]
        return []

    # What everybody asks

    def find(self, run: str) -> Lease | None:
        return self.leases.get(run)

    def agent(self, name: str) -> AgentRecord | None:
        return self._record(name) if name in self.agents else None

    def snapshot(self) -> list[AgentRecord]:
        return [self._record(name) for name in sorted(self.agents)]

    def _record(self, name: str) -> AgentRecord:
        agent = self.agents[name]
        return AgentRecord(
            name=name,
            instance_id=agent.instance_id,
            draining=agent.draining,
            silent=agent.silent,
            registered_at=agent.registered_at,
            heartbeat_at=agent.heartbeat_at,
            idle_since=None if agent.taken else agent.idle_since,
            leases=tuple(self.leases[run] for run in agent.runs if run),
            claim=agent.claim,
            cordoned=agent.cordoned,
        )

    def stats(self) -> PoolStats:
        accepting = [agent for agent in self.agents.values() if agent.accepts]
        reserved = sum(lease.state is RESERVED for lease in self.leases.values())
        return PoolStats(
            agents=len(self.agents),
            available=len(accepting),
            running=len(self.leases) - reserved,
            reserved=reserved,
            free_apply=sum(agent.runs[0] is None for agent in accepting),
            free_plan_only=sum(agent.runs[1:].count(None) for agent in accepting),
        )
