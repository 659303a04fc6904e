"""Metrics of a live system: what its processes serve, and what moves when a run passes through them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.dashboard.conftest import Live
from tests.waiting import eventually
from workers import metrics
from workers.dashboard.metrics import GAUGES

REFERENCE = Path(__file__).parents[2] / "docs" / "reference.md"
CONTROL, CLUSTER, REPORTS = range(3)


def served(port: int) -> list[Sample]:
    """The samples of this system that a process serves."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert answer.status == 200, text
    families = text_string_to_metric_families(text)
    return [sample for family in families for sample in family.samples if sample.name.startswith("terraslot_")]


def of_workers(live: Live) -> Iterator[Sample]:
    for number in (CONTROL, CLUSTER, REPORTS):
        yield from served(live.metrics + number)


def total(live: Live, name: str, **labels: str) -> float:
    """The sum over all workers of what has this name and these labels."""
    wanted = labels.items()
    return sum(each.value for each in of_workers(live) if each.name == name and wanted <= each.labels.items())


@pytest.fixture(scope="module")
def applied(live: Live) -> dict[str, tuple[float, float]]:
    """What each counter was before and after one run was planned, confirmed and applied."""
    live.workspace("measured")
    counters = {
        "submitted": ("terraslot_runs_submitted_total", {"kind": "plan_and_apply"}),
        "waited": ("terraslot_run_waiting_seconds_count", {"kind": "plan_and_apply"}),
        "plan orders": ("terraslot_order_seconds_count", {"phase": "plan"}),
        "apply orders": ("terraslot_order_seconds_count", {"phase": "apply"}),
        "plans": ("terraslot_phase_seconds_count", {"phase": "plan", "outcome": "succeeded"}),
        "applies": ("terraslot_phase_seconds_count", {"phase": "apply", "outcome": "succeeded"}),
        "finished": ("terraslot_runs_finished_total", {"kind": "plan_and_apply", "outcome": "succeeded", "reason": ""}),
        "delivered": ("terraslot_deliveries_total", {"how": "stored"}),
        "redeemed": ("terraslot_redis_call_seconds_count", {"verb": "acquire"}),
    }
    before = {what: total(live, name, **labels) for what, (name, labels) in counters.items()}
    run = live.ada.post("/runs", workspace="measured", kind="plan_and_apply").json["run_id"]
    live.reaches(run, "apply_pending")
    assert live.ada.post(f"/runs/{run}/confirm", attempt=1).status == 200
    live.reaches(run, "succeeded")
    eventually(lambda: total(live, "terraslot_deliveries_total", how="stored") > before["delivered"])
    return {what: (before[what], total(live, name, **labels)) for what, (name, labels) in counters.items()}


def test_a_run_moves_the_counters_of_each_step_by_one(applied: dict[str, tuple[float, float]]) -> None:
    moved = {what: after - before for what, (before, after) in applied.items() if what != "redeemed"}

    assert moved == dict.fromkeys(moved, 1)
    assert applied["redeemed"][1] > applied["redeemed"][0]


def test_cycles_and_decisions_are_counted_by_the_cluster_worker(live: Live) -> None:
    eventually(lambda: total(live, "terraslot_cycle_seconds_count", pool="default", outcome="done"), timeout=90)

    assert {each.name for each in served(live.metrics + CLUSTER)} >= {"terraslot_scaling_decisions_total"}
    assert total(live, "terraslot_scaling_decisions_total", pool="default") > 0


@pytest.mark.usefixtures("applied")
def test_every_metric_of_a_live_system_is_declared_and_documented(live: Live) -> None:
    declared = {each.name: set(each.labels) for each in metrics.METRICS} | {
        name: set(labels) for name, (_, labels) in GAUGES.items()
    }
    found = defaultdict[str, set[str]](set)
    for each in [*of_workers(live), *served(live.port)]:
        base = each.name
        for suffix in ("_bucket", "_sum", "_count", "_created"):
            base = base.removesuffix(suffix) if base.removesuffix(suffix) in declared else base
        if not base.endswith("_created"):
            found[base] |= each.labels.keys() - {"le"}
    assert found.keys() <= declared.keys()
    assert all(labels == declared[name] for name, labels in found.items())
    assert GAUGES.keys() <= found.keys()
    documented = REFERENCE.read_text()
    assert all(f"| `{name}` |" in documented for name in declared)


@pytest.mark.usefixtures("applied")
def test_no_label_names_a_workspace_or_a_run(live: Live) -> None:
    labels = {label for each in [*of_workers(live), *served(live.port)] for label in each.labels}

    bounded = {"pool", "kind", "outcome", "reason", "phase", "how", "verb", "step", "le"}
    assert labels <= bounded | {"state", "limit", "status", "cause", "queue", "server"}
