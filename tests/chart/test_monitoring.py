"""Prometheus is led to the metrics, and the Grafana dashboard asks for what is there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from tests.chart.rendering import CHART, EVERYTHING, NAME, Object, containers, one, pods, render
from workers.dashboard.metrics import PoolMetrics
from workers.dashboard.shared_pools import SharedPools
from workers.services.pools import manage as pools
from workers.services.system import build
from workers.settings import Settings
from workers.specs.pools import PoolSpec

_SELECTOR = re.compile(r"\b(terraslot_\w+)(?:\{([^}]*)\})?")


@pytest.fixture
def metrics(redis_url: str, tmp_path: Path) -> dict[str, Metric]:
    """What the control plane says of a pool."""
    system = build(Settings(home=tmp_path, redis_url=redis_url), Celery(set_as_current=False))
    system.database.migrate()
    pools.ensure(system, PoolSpec(name="default"))
    registry = CollectorRegistry()
    registry.register(PoolMetrics(SharedPools(system)))
    found = {metric.name: metric for metric in registry.collect()}
    system.database.dispose()
    system.redis.close()
    return found


def _expressions() -> Iterator[str]:
    dashboard = json.loads((CHART / "dashboards" / "terraslot.json").read_text())
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (each["definition"] for each in dashboard["templating"]["list"] if "definition" in each)


def test_the_dashboard_asks_for_metrics_labels_and_values_that_there_are(metrics: dict[str, Metric]) -> None:
    for expression in _expressions():
        for name, matchers in _SELECTOR.findall(expression):
            samples = metrics[name].samples
            for label, value in re.findall(r'(\w+)="([^"]*)"', matchers):
                assert value in {sample.labels[label] for sample in samples}, expression
            for label in re.findall(r"(\w+)=~", matchers) + re.findall(r"by \((\w+)\)", expression):
                assert all(label in sample.labels for sample in samples), expression


def test_the_dashboard_shows_every_metric_of_the_pools(metrics: dict[str, Metric]) -> None:
    asked = {name for expression in _expressions() for name, _ in _SELECTOR.findall(expression)}

    assert asked == metrics.keys()


def test_grafana_finds_the_dashboard_and_reads_it() -> None:
    found = one(render(EVERYTHING), "ConfigMap", f"{NAME}-dashboard")

    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(found["data"]["terraslot.json"])["title"] == "Terraslot pools"


def test_prometheus_is_led_to_the_port_that_flower_listens_on() -> None:
    objects = render(EVERYTHING)
    monitor, service = one(objects, "ServiceMonitor", f"{NAME}-flower"), one(objects, "Service", f"{NAME}-flower")
    flower = next(pod for component, pod in pods(objects) if component == "flower")
    [endpoint] = monitor["spec"]["endpoints"]

    assert endpoint["path"] == "/metrics"
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert _selects(monitor["spec"]["selector"]["matchLabels"], service)
    assert _selects(service["spec"]["selector"], flower)
    [port] = [port for port in service["spec"]["ports"] if port["name"] == endpoint["port"]]
    [listening] = [each for container in containers(flower) for each in container["ports"]]
    assert port["targetPort"] == listening["name"]
    assert f"--port={listening['containerPort']}" in containers(flower)[0]["args"]


def _selects(labels: dict[str, str], each: Object) -> bool:
    return labels.items() <= each["metadata"]["labels"].items()
