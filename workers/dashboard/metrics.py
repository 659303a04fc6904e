"""The pools in Prometheus's words, read when they are asked for."""

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from workers.core.lifecycle import RunStatus
from workers.services.errors import user_message
from workers.services.pools import views as pool_views
from workers.services.pools.views import PoolView
from workers.services.system import System

_AGENT_STATES = ("available", "draining", "silent")

# What a gauge is called, what it says, its label beside the pool, and its values of one pool by that label.
_Values = dict[str, float]


class PoolMetrics(Collector):
    """Collects gauges of every pool; ``terraslot_up`` is 0, and alone, where Redis or the database can't be read."""

    def __init__(self, system: System) -> None:
        self._system = system

    def describe(self) -> Iterable[Metric]:
        """Return nothing: whoever registers this need not have servers that answer."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read all pools and return their gauges."""
        try:
            pools = pool_views.every(self._system)
        except Exception as error:
            if user_message(error) is None:
                raise
            yield _up(0)
            return
        yield _up(1)
        yield _gauge("slots", "Slots by state.", "state", {pool.name: _slots(pool) for pool in pools})
        yield _gauge("slots_free", "Slots that a run could be given now.", "kind", {p.name: _free(p) for p in pools})
        yield _gauge("agents", "Registered agents by state.", "state", {p.name: _agents(p) for p in pools})
        yield _gauge("agents_limit", "Limits of the pool.", "limit", {p.name: _limits(p) for p in pools})
        yield _gauge("runs_pending", "Runs that lack nothing but a slot.", "kind", {p.name: _pending(p) for p in pools})
        yield _gauge("runs", "Runs that hold a slot.", "status", {p.name: _runs(p) for p in pools})


def _up(value: float) -> Metric:
    return GaugeMetricFamily("terraslot_up", "Whether Redis and the database can be read.", value=value)


def _gauge(name: str, says: str, label: str, values: dict[str, _Values]) -> Metric:
    gauge = GaugeMetricFamily(f"terraslot_{name}", says, labels=("pool", label))
    for pool, by_label in values.items():
        for key, value in by_label.items():
            gauge.add_metric((pool, key), value)
    return gauge


def _slots(pool: PoolView) -> _Values:
    return {"running": pool.slots.running, "reserved": pool.slots.reserved, "idle": pool.slots.idle}


def _free(pool: PoolView) -> _Values:
    return {"plan": pool.slots.free_plan, "plan_and_apply": pool.slots.free_plan_and_apply}


def _agents(pool: PoolView) -> _Values:
    states = Counter(agent.state for agent in pool.agents)
    return {state: states[state] for state in _AGENT_STATES}


def _limits(pool: PoolView) -> _Values:
    return {"min": pool.limits["min_agents"], "max": pool.limits["max_agents"]}


def _pending(pool: PoolView) -> _Values:
    return dict(pool.pending)


def _runs(pool: PoolView) -> _Values:
    return {status.value: pool.runs.get(status.value, 0) for status in RunStatus if status.holds_slot}
