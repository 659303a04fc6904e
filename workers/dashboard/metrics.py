"""What is true now, in Prometheus's words: pools, what waits, and the servers; read when it is asked for.

What has happened is counted by the workers themselves: :mod:`workers.metrics`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from workers.core.lifecycle import RunStatus
from workers.dashboard.shared_pools import SharedPools
from workers.services.errors import user_message
from workers.services.measures import Measures, measure
from workers.services.pools.views import PoolView
from workers.services.system import System

_AGENT_STATES = ("available", "draining", "silent")
_CAUSES = ("slot", "workspace")
_UP = "terraslot_up"
# What each gauge says, and its labels.
GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    _UP: ("Whether Redis and the database can be read; while it is 0, it is the only one.", ()),
    "terraslot_slots": ("Slots by state.", ("pool", "state")),
    "terraslot_slots_free": ("Slots that a run could be given now.", ("pool", "kind")),
    "terraslot_agents": ("Registered agents by state.", ("pool", "state")),
    "terraslot_agents_limit": ("Limits of the pool.", ("pool", "limit")),
    "terraslot_pool_problem": ("1 while the pool's status tells what is wrong with it.", ("pool",)),
    "terraslot_runs": ("Runs that hold a slot.", ("pool", "status")),
    "terraslot_runs_pending": ("Runs that lack nothing but a slot.", ("pool", "kind")),
    "terraslot_runs_waiting": (
        "Runs that wait for a slot, or for their workspace: it is locked, or another run of it is not over.",
        ("pool", "cause"),
    ),
    "terraslot_oldest_waiting_seconds": ("How long ago the first of them was submitted.", ("pool", "cause")),
    "terraslot_reports_waiting": ("Reports of agents that no reader has taken.", ("pool",)),
    "terraslot_messages_waiting": ("Messages that no worker has taken.", ("queue",)),
    "terraslot_outcomes_overdue": ("Runs that were over a minute ago, and whose outcome was not delivered.", ()),
    "terraslot_states_unsaved": ("States that could not be saved, and were neither pushed nor given up.", ()),
    "terraslot_redis_memory_bytes": ("Bytes that a server uses: redis, and a broker of its own.", ("server",)),
    "terraslot_redis_memory_limit_bytes": ("Bytes that it may use; 0 for any number.", ("server",)),
}
_Sample = tuple[str, tuple[str, ...], float]


class SystemMetrics(Collector):
    """Collects gauges of every pool and of the system."""

    def __init__(self, system: System, pools: SharedPools) -> None:
        self._system = system
        self._pools = pools

    def describe(self) -> Iterable[Metric]:
        """Return nothing: whoever registers this need not have servers that answer."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read everything and return the gauges; ``terraslot_up`` alone where the servers can't be read."""
        try:
            samples = [(_UP, (), 1.0), *_of_pools(self._pools.every()), *_of_system(measure(self._system))]
        except Exception as error:
            if user_message(error) is None:
                raise
            yield GaugeMetricFamily(_UP, GAUGES[_UP][0], value=0)
            return
        for name, (says, labels) in GAUGES.items():
            gauge = GaugeMetricFamily(name, says, labels=labels)
            for each, values, value in samples:
                if each == name:
                    gauge.add_metric(values, value)
            yield gauge


def _of_pools(pools: Iterable[PoolView]) -> Iterator[_Sample]:
    for pool in pools:
        yield "terraslot_pool_problem", (pool.name,), float(pool.status_message is not None)
        for name, values in _values(pool).items():
            for label, value in values.items():
                yield f"terraslot_{name}", (pool.name, label), value


def _values(pool: PoolView) -> dict[str, dict[str, int]]:
    """Return the values of a pool's gauges, each by its label beside the pool."""
    slots, states = pool.slots, Counter(agent.state for agent in pool.agents)
    limits = {"min": pool.limits["min_agents"], "max": pool.limits["max_agents"]}
    return {
        "slots": {"running": slots.running, "reserved": slots.reserved, "idle": slots.idle},
        "slots_free": {"plan": slots.free_plan, "plan_and_apply": slots.free_plan_and_apply},
        "agents": {state: states[state] for state in _AGENT_STATES},
        "agents_limit": {bound: limit for bound, limit in limits.items() if limit is not None},
        "runs_pending": pool.pending,
        "runs": {status.value: pool.runs.get(status, 0) for status in RunStatus if status.holds_slot},
    }


def _of_system(found: Measures) -> Iterator[_Sample]:
    waiting = {(each.pool, each.cause): each for each in found.waiting}
    for pool, reports in found.reports.items():
        yield "terraslot_reports_waiting", (pool,), reports
        for cause in _CAUSES:
            those = waiting.get((pool, cause))
            oldest = (found.now - those.since).total_seconds() if those else 0.0
            yield "terraslot_runs_waiting", (pool, cause), those.runs if those else 0
            yield "terraslot_oldest_waiting_seconds", (pool, cause), max(0.0, oldest)
    for queue, messages in found.messages.items():
        yield "terraslot_messages_waiting", (queue,), messages
    yield "terraslot_outcomes_overdue", (), found.undelivered
    yield "terraslot_states_unsaved", (), found.unsettled_states
    for server, memory in found.memory.items():
        yield "terraslot_redis_memory_bytes", (server,), memory.used
        yield "terraslot_redis_memory_limit_bytes", (server,), memory.limit
