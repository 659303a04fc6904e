"""What is counted and traced of runs that lose their agents, are refused, or whose outcomes are overdue."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis.exceptions import ConnectionError as RedisAway

from tests.services.conftest import POOL, ControlPlane
from workers import metrics, traces
from workers.protocol.kinds import RunKind
from workers.services.runs import deliver, orders, report
from workers.store.models import Run

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Drawn:
    """Stands for the exporter: it keeps each span's error by the span's name."""

    def __init__(self) -> None:
        self.errors = defaultdict[str, list[str | None]](list)

    def draw(
        self, name: str, run: Run, times: tuple[datetime, datetime], error: str | None, *_: Any, **__: Any
    ) -> None:
        assert run.trace == CALLER
        assert times[0] <= times[1]
        self.errors[name].append(error)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    drawn = Drawn()
    monkeypatch.setattr(traces, "_exporters", [drawn])
    return drawn


@pytest.fixture
def counted() -> Iterator[CollectorRegistry]:
    registry = CollectorRegistry()
    metrics.begin(registry)
    yield registry
    for metric in metrics.METRICS:
        metric.begin(None)


@pytest.fixture
def traced(control: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> ControlPlane:
    """A control plane whose runs are all of the caller's trace."""
    control.workspace()
    enter = report.runs.add

    def add(*arguments: Any, **values: Any) -> Any:
        return enter(*arguments, **values | {"trace": CALLER})

    monkeypatch.setattr(report.runs, "add", add)
    return control


def test_a_plan_that_loses_its_agent_and_the_one_that_is_made_anew(
    traced: ControlPlane, drawn: Drawn, counted: CollectorRegistry
) -> None:
    agent = traced.agent()
    run = traced.submit(RunKind.PLAN)
    agent.start(agent.order())
    report.agent_gone(traced.system, POOL, agent.name, agent.instance_id, "its pod is gone")
    traced.agent("default-2").work(changed=False)

    assert drawn.errors["plan"] == ["agent lost", None]
    assert drawn.errors["run"] == [None]
    assert len(drawn.errors["dispatch"]) == 2
    assert len(drawn.errors["wait for slot"]) == 1
    assert traced.run(run.id).attempt == 2
    sample = counted.get_sample_value
    assert sample("terraslot_agents_lost_total", {"pool": POOL}) == 1
    assert sample("terraslot_runs_requeued_total", {"pool": POOL}) == 1
    assert sample("terraslot_run_waiting_seconds_count", {"pool": POOL, "kind": "plan"}) == 1
    finished = {"pool": POOL, "kind": "plan", "outcome": "succeeded", "reason": ""}
    assert sample("terraslot_runs_finished_total", finished) == 1


def test_an_agent_that_stops_by_itself_is_not_lost(control: ControlPlane, counted: CollectorRegistry) -> None:
    agent = control.agent()
    report.agent_gone(control.system, POOL, agent.name, agent.instance_id, "its pod is gone")

    assert counted.get_sample_value("terraslot_agents_lost_total", {"pool": POOL}) is None


def test_an_order_that_could_not_be_sent_is_marked_by_what_was_away(
    traced: ControlPlane, drawn: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise RedisAway("the password is hunter2")

    traced.submit(RunKind.PLAN)
    monkeypatch.setattr(orders, "send", away)
    with pytest.raises(RedisAway):
        traced.agent()

    assert drawn.errors["dispatch"] == ["ConnectionError"]


def test_an_outcome_that_is_overdue_is_delivered_again_in_the_runs_trace(
    traced: ControlPlane, drawn: Drawn, counted: CollectorRegistry, clock_ahead: Any
) -> None:
    agent = traced.agent()
    run = traced.submit(RunKind.PLAN)
    agent.work(changed=False)
    assert traced.deliveries() == [run.id]  # and it is lost
    clock_ahead(200)

    assert deliver.deliver_overdue(traced.system) == 1
    assert drawn.errors["deliver again"] == [None]
    assert counted.get_sample_value("terraslot_deliveries_total", {"how": "repeated"}) == 1
