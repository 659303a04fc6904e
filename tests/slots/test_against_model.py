"""Whatever is done to the slot map, in whatever order, it answers and stands as the model does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import fakeredis
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.slots.invariants import POOL, check
from tests.slots.model import Model
from workers.protocol.kinds import RunKind
from workers.protocol.leases import CancelMode, Lease
from workers.protocol.programs import Program
from workers.protocol.version import instance_id
from workers.slots.slot_map import SlotMap

AGENTS = st.sampled_from(["agent-1", "agent-2"])
TERRAFORM, TOFU = map(Program.of_word, ("terraform/1.9.8", "tofu/1.10.1"))
INCARNATIONS = st.sampled_from(["first", instance_id("second", [TERRAFORM]), instance_id("third", [TERRAFORM, TOFU])])
RUNS = st.sampled_from([f"run-{number}" for number in range(7)])
CLAIMS = st.sampled_from(["mine", "theirs"])
KINDS = st.sampled_from(RunKind)
MODES = st.sampled_from(CancelMode)
TIMES = st.integers(0, 400).map(lambda quarters: 1_000 + quarters / 4)


class Repeating:
    """A client that loses the reply of every call, and repeats the call: it must be answered alike."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    def execute_command(self, *words: Any) -> Any:
        lost = self.client.execute_command(*words)
        reply = self.client.execute_command(*words)
        assert reply == lost, words
        return reply

    def hget(self, *words: Any) -> Any:
        return self.client.hget(*words)


class SlotMachine(RuleBasedStateMachine):
    """Runs every step on the slot map and on the model; on a real server twice. Tokens are fresh: the contract's."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__()
        client.flushall()
        self.client, self.model = client, Model()
        self.model.now = 1_000.0
        self.slots = SlotMap(client, POOL, clock=lambda: self.model.now)
        way: Any = client if isinstance(client, fakeredis.FakeRedis) else Repeating(client)
        self.lossy = SlotMap(way, POOL, clock=lambda: self.model.now)
        self.tokens: list[str] = ["never-given"]
        self.leases: list[Lease] = []
        self.redeemed: set[str] = set()

    def both(self, verb: str, *arguments: Any, **options: Any) -> Any:
        reply = getattr(self.lossy, verb)(*arguments, **options)
        expected = getattr(self.model, verb)(*arguments, **options)
        assert reply == expected, verb
        if isinstance(reply, Lease):
            self.leases.append(reply)
        return reply

    def fresh_token(self) -> str:
        self.tokens.append(f"token-{len(self.tokens)}")
        return self.tokens[-1]

    def a_run(self, data: st.DataObject) -> str:
        """A run that holds a slot, mostly; so that much happens to few."""
        return data.draw(st.sampled_from([*self.model.leases] * 3 + ["run-0"]))

    def its_token(self, data: st.DataObject, run: str) -> str:
        """The token of the run's lease, mostly; else one that was given long ago, or just now to another."""
        lease = self.model.leases.get(run)
        own = [lease.token] * 4 if lease else []
        return data.draw(st.sampled_from([*own, self.tokens[-1], self.tokens[len(self.tokens) // 2]]))

    def some_tokens(self, data: st.DataObject) -> list[str]:
        running = [lease.token for lease in self.model.leases.values()]
        return data.draw(st.lists(st.sampled_from([*running, self.tokens[-1]]), unique=True, max_size=4))

    @initialize()
    def two_agents(self) -> None:
        self.both("register", "agent-1", "first")
        self.both("register", "agent-2", "first")

    @rule(seconds=st.sampled_from([0.25, 1.0, 20.0, 45.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self.model.now += seconds

    @rule(agent=AGENTS, instance_id=INCARNATIONS, draining=st.sampled_from([False, False, True]), data=st.data())
    def register(self, agent: str, instance_id: str, draining: bool, data: st.DataObject) -> None:
        brought = data.draw(st.lists(st.sampled_from(self.leases), max_size=3)) if self.leases else []
        known = [replace(lease, redeemed=lease.token in self.redeemed) for lease in brought]
        self.both("register", agent, instance_id, known, draining=draining)

    @rule(agent=AGENTS, instance_id=INCARNATIONS, data=st.data())
    def heartbeat(self, agent: str, instance_id: str, data: st.DataObject) -> None:
        self.both("heartbeat", agent, instance_id, self.some_tokens(data), self.some_tokens(data))

    @rule(run=RUNS, kind=KINDS, programs=st.sampled_from([(), (), (TOFU,), (TERRAFORM, TOFU)]))
    def acquire(self, run: str, kind: RunKind, programs: tuple[Program, ...]) -> None:
        self.both("acquire", run, kind, self.fresh_token(), programs)

    @rule(other=AGENTS, data=st.data())
    def redeem(self, other: str, data: st.DataObject) -> None:
        run = self.a_run(data)
        lease = self.model.leases.get(run)
        agent = data.draw(st.sampled_from([lease.agent] * 3 + [other])) if lease else other
        token = self.its_token(data, run)
        if self.both("redeem", agent, run, token):
            assert token not in self.redeemed, "a token was redeemed twice"
            self.redeemed.add(token)

    @rule(until=TIMES, data=st.data())
    def reserve(self, until: float, data: st.DataObject) -> None:
        run = self.a_run(data)
        self.both("reserve", run, self.its_token(data, run), until)

    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        run = self.a_run(data)
        self.both("resume", run, self.its_token(data, run), self.fresh_token())

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        run = self.a_run(data)
        self.both("release", run, self.its_token(data, run))

    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        run = self.a_run(data)
        self.both("revoke", run, self.its_token(data, run))

    @rule(mode=MODES, data=st.data())
    def cancel(self, mode: CancelMode, data: st.DataObject) -> None:
        self.both("cancel", self.a_run(data), mode)

    @rule(count=st.integers(0, 4), claim=CLAIMS, among=st.none() | st.lists(AGENTS, unique=True))
    def claim_idle(self, count: int, claim: str, among: list[str] | None) -> None:
        self.both("claim_idle", count, claim, among)

    @rule(agent=AGENTS, claim=CLAIMS, expect=CLAIMS)
    def take_over(self, agent: str, claim: str, expect: str) -> None:
        self.both("take_over", agent, claim, expect)

    @rule(agent=AGENTS, claim=CLAIMS)
    def give_back(self, agent: str, claim: str) -> None:
        self.both("give_back", agent, claim)

    @rule(agent=AGENTS, cordon=st.booleans())
    def drain(self, agent: str, cordon: bool) -> None:
        self.both("drain", agent, cordon=cordon)

    @rule(agent=AGENTS, cordon=st.booleans())
    def undrain(self, agent: str, cordon: bool) -> None:
        self.both("undrain", agent, cordon=cordon)

    @rule(older_than=st.sampled_from([10.0, 30.0]))
    def mark_silent(self, older_than: float) -> None:
        self.both("mark_silent", older_than)

    @rule(heard=st.none() | AGENTS)
    def nobody_or_one_is_heard_for_a_while(self, heard: str | None) -> None:
        for seconds in (0, 6, 6):
            self.model.now += seconds
            if heard in self.model.agents:
                self.both("heartbeat", heard, self.model.agents[heard].instance_id, [], [])
            self.both("mark_silent", 10.0)

    @rule(agent=AGENTS, instance_id=st.none() | INCARNATIONS, whatever_it_holds=st.booleans(), data=st.data())
    def deregister(self, agent: str, instance_id: str | None, whatever_it_holds: bool, data: st.DataObject) -> None:
        self.both("deregister", agent, instance_id, settled=None if whatever_it_holds else self.some_tokens(data))

    @rule()
    def the_server_restarts_with_its_data(self) -> None:
        self.client.script_flush()

    @invariant()
    def everything_is_as_the_model_says(self) -> None:
        assert self.slots.snapshot() == self.model.snapshot()
        assert self.slots.stats() == self.model.stats()
        assert self.slots.watched() == self.model.watched()
        for name in [*self.model.agents, "nobody"]:
            assert self.slots.agent(name) == self.model.agent(name)
        for run in [*self.model.leases, "nothing"]:
            assert self.slots.find(run) == self.model.find(run)

    @invariant()
    def every_index_is_what_the_records_say(self) -> None:
        check(self.client, self.slots)


def test_the_slot_map_is_its_model(client: redis.Redis) -> None:
    """Most of it on the real server: the fake, which is slow, only has to run the same verbs."""
    machine: Callable[[], SlotMachine] = lambda: SlotMachine(client)  # noqa: E731 - hypothesis calls it for each run
    examples = 12 if isinstance(client, fakeredis.FakeRedis) else 50
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=slow),
    )
