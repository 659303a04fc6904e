"""Prometheus is led to the metrics, and the Grafana dashboard and the alerts ask for what is there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache

import pytest
import yaml

from tests.chart.rendering import CHART, EVERYTHING, NAME, Object, containers, one, pods, render, variables
from workers import metrics
from workers.core.lifecycle import RunStatus
from workers.dashboard.metrics import GAUGES
from workers.protocol.kinds import RunKind

_SELECTOR = re.compile(r"\b(terraslot_\w+)(?:\{([^}]*)\})?")
_OF_PROMETHEUS = {"le"}
# The words that labels have beside the names of pools and queues.
_VALUES = {
    "cause": {"slot", "workspace"},
    "how": {"stored", "repeated", "given up"},
    "kind": set(RunKind),
    "limit": {"min", "max"},
    "outcome": {"done", "failed", "succeeded", "cancelled"},
    "state": {"running", "reserved", "idle", "available", "draining", "silent"},
    "status": {status.value for status in RunStatus if status.holds_slot},
}


@cache
def _labels() -> dict[str, set[str]]:
    """The labels of everything that can be asked for: what a live system exposes is compared with it elsewhere."""
    found = {name: set(labels) for name, (_, labels) in GAUGES.items()}
    for each in metrics.METRICS:
        parts = ("_bucket", "_sum", "_count") if each.kind == "histogram" else ("",)
        found |= {
            f"{each.name}{part}": {*each.labels, *(_OF_PROMETHEUS if part == "_bucket" else ())} for part in parts
        }
    return found


def _dashboard() -> Iterator[str]:
    dashboard = json.loads((CHART / "dashboards" / "terraslot.json").read_text())
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", []))
    yield from (each["definition"] for each in dashboard["templating"]["list"] if "definition" in each)


def _alerts() -> list[Object]:
    [group] = yaml.safe_load((CHART / "alerts" / "terraslot.yaml").read_text())["groups"]
    return list(group["rules"])


@pytest.mark.parametrize("expression", [*_dashboard(), *(alert["expr"] for alert in _alerts())])
def test_dashboard_and_alerts_ask_for_metrics_labels_and_values_that_there_are(expression: str) -> None:
    asked = _SELECTOR.findall(expression)
    assert asked
    for name, matchers in asked:
        for label, value in re.findall(r'(\w+)="([^"]*)"', matchers):
            assert label in _labels()[name]
            assert value in _VALUES[label]
        assert set(re.findall(r"(\w+)=~", matchers)) <= _labels()[name]
        for by in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
            assert {label.strip() for label in by.split(",")} <= _labels()[name]


def test_the_dashboard_shows_every_metric() -> None:
    asked = {re.sub("_(bucket|count)$", "", name) for each in _dashboard() for name, _ in _SELECTOR.findall(each)}

    assert asked == {each.name for each in metrics.METRICS} | GAUGES.keys()


def test_every_alert_says_what_happens_and_what_to_do_about_what_it_names() -> None:
    for alert in _alerts():
        said = alert["annotations"]
        assert said.keys() == {"summary", "description"}
        assert alert["labels"]["severity"] in ("warning", "critical")
        labels = set(re.findall(r"\$labels\.(\w+)", json.dumps(said)))
        if "by (" in alert["expr"]:
            assert labels <= set(re.findall(r"by \((\w+)\)", alert["expr"]))
        else:
            assert labels <= set.union(*(_labels()[name] for name, _ in _SELECTOR.findall(alert["expr"])))


def test_an_alert_tells_where_the_others_have_nothing_to_ask() -> None:
    """By default the network policies let nobody scrape Flower: then a comparison with its gauges is never true."""
    [alert] = [alert for alert in _alerts() if "absent(" in alert["expr"]]

    assert alert["expr"] == "absent(terraslot_up)"
    assert "networkPolicies.flowerFrom" in alert["annotations"]["description"]


def test_an_alert_about_a_counter_sees_the_first_time_that_it_counts() -> None:
    """A series begins with 1, in which ``increase`` sees no increase: each process has its own."""
    rules = {alert["alert"]: " ".join(alert["expr"].split()) for alert in _alerts()}
    counted = {
        (name, *found)
        for name, expr in rules.items()
        for found in re.findall(r"increase\((\w+_total(?:{[^}]*})?)\[(\w+)\]", expr)
    }

    assert len(counted) == 4
    for name, series, window in counted:
        assert f"({series} unless {series} offset {window}) or increase({series}[{window}])" in rules[name]


def test_prometheus_loads_the_alerts_as_they_are() -> None:
    found = one(render(EVERYTHING), "PrometheusRule", f"{NAME}-alerts")

    assert found["metadata"]["labels"]["release"] == "prometheus"
    assert [alert["alert"] for alert in found["spec"]["groups"][0]["rules"]] == [alert["alert"] for alert in _alerts()]


def test_prometheus_is_led_to_the_port_at_which_each_worker_serves_what_it_counts() -> None:
    objects = render(EVERYTHING)
    monitor = one(objects, "PodMonitor", f"{NAME}-workers")
    [endpoint], wanted = monitor["spec"]["podMetricsEndpoints"], monitor["spec"]["selector"]

    [components] = [each["values"] for each in wanted["matchExpressions"]]
    serving = {}
    for component, pod in pods(objects):
        [container, *_] = containers(pod)
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        if endpoint["port"] in ports:
            serving[component] = pod
            assert variables(container)["TERRASLOT_METRICS_PORT"]["value"] == str(ports[endpoint["port"]])
    assert set(components) == serving.keys() == {"control", "cluster", "reports"}
    assert all(_selects(wanted["matchLabels"], pod) for pod in serving.values())


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
