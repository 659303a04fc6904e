"""What processes count: only where that is served, and at no price elsewhere."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from urllib.request import urlopen

import pytest
import redis
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from workers import metrics
from workers.slots import connection
from workers.slots.slot_map import SlotMap


@pytest.fixture(autouse=True)
def _count_nothing_afterwards() -> Iterator[None]:
    yield
    connection._observers.clear()
    for metric in metrics.METRICS:
        metric.begin(None)


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    metrics.begin(registry)
    return registry


def test_a_process_that_serves_no_metrics_does_not_load_their_library() -> None:
    said = subprocess.run(
        [sys.executable, "-c", "import sys, workers.tasks, workers.reports; print('prometheus_client' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert said.strip() == "False"


def test_a_port_that_is_taken_is_told_and_keeps_no_worker_from_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prometheus_client.REGISTRY", CollectorRegistry())
    with socket.socket() as taken, capture_logs() as logged:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        metrics.serve("127.0.0.1", port)

    [line] = logged
    assert (line["log_level"], line["port"]) == ("warning", port)
    assert "TERRASLOT_METRICS_PORT" in line["event"]
    assert "in use" in line["error"]


def test_what_is_counted_is_served_at_the_port_and_nothing_listens_without_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("prometheus_client.REGISTRY", CollectorRegistry())
    before = threading.active_count()
    metrics.serve("127.0.0.1", 0)
    assert threading.active_count() == before
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    metrics.serve("127.0.0.1", port)
    metrics.AGENTS_LOST.add("default")

    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert 'terraslot_agents_lost_total{pool="default"} 1.0' in answer.read().decode()


def test_a_block_that_raises_counts_as_failed(registry: CollectorRegistry) -> None:
    with metrics.CYCLES.measured("default"):
        pass
    with pytest.raises(ValueError, match="no"), metrics.CYCLES.measured("default"):
        raise ValueError("no")

    counted = {
        outcome: registry.get_sample_value("terraslot_cycle_seconds_count", {"pool": "default", "outcome": outcome})
        for outcome in ("done", "failed")
    }
    assert counted == {"done": 1, "failed": 1}


def test_calls_of_redis_are_timed_by_their_verb_also_those_that_fail(
    registry: CollectorRegistry, valkey: redis.Redis
) -> None:
    slots = SlotMap(valkey, "default")
    slots.stats()
    slots.register("default-1", "2.life")
    connection.run_together(valkey, [slots.release_step("run-1", "token"), slots.release_step("run-2", "token")])
    valkey.close()
    with redis.Redis(port=1, retry=None) as nowhere, pytest.raises(redis.RedisError):
        SlotMap(nowhere, "default").stats()

    counted = {
        verb: registry.get_sample_value("terraslot_redis_call_seconds_count", {"verb": verb})
        for verb in ("stats", "register", "together", "acquire")
    }
    assert counted == {"stats": 2, "register": 1, "together": 1, "acquire": None}
