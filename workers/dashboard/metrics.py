"""The pools in Prometheus's words, read when they are asked for."""

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from workers.core.lifecycle import RunStatus
from workers.dashboard.shared_pools import SharedPools
from workers.services.errors import user_message
from workers.services.pools.views import PoolView

_AGENT_STATES = ("available", "draining", "silent")
# What each gauge says, and its label beside the pool.
_GAUGES = {
    "slots": ("Slots by state.", "state"),
    "slots_free": ("Slots that a run could be given now.", "kind"),
    "agents": ("Registered agents by state.", "state"),
    "agents_limit": ("Limits of the pool.", "limit"),
    "runs_pending": ("Runs that lack nothing but a slot.", "kind"),
    "runs": ("Runs that hold a slot.", "status"),
}


class PoolMetrics(Collector):
    """Collects gauges of every pool; ``terraslot_up`` is 0, and alone, where Redis or the database can't be read."""

    def __init__(self, pools: SharedPools) -> None:
        self._pools = pools

    def describe(self) -> Iterable[Metric]:
        """Return nothing: whoever registers this need not have servers that answer."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read all pools and return their gauges."""
        try:
            pools = self._pools.every()
        except Exception as error:
            if user_message(error) is None:
                raise
            yield _up(0)
            return
        yield _up(1)
        values = {pool.name: _values(pool) for pool in pools}
        for name, (says, label) in _GAUGES.items():
            gauge = GaugeMetricFamily(f"terraslot_{name}", says, labels=("pool", label))
            for pool, of_pool in values.items():
                for key, value in of_pool[name].items():
                    gauge.add_metric((pool, key), value)
            yield gauge


def _up(value: float) -> Metric:
    return GaugeMetricFamily("terraslot_up", "Whether Redis and the database can be read.", value=value)


def _values(pool: PoolView) -> dict[str, dict[str, int]]:
    """Return the values of a pool's gauges, each by its label."""
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
