"""Traces without a system: whose trace a run joins, what a span says, and that nothing is loaded where none is made."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.otlp import Collector, collector
from workers import traces

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOW = datetime.now(UTC)


@dataclass
class Run:
    """As much of a run as traces know."""

    trace: str | None
    id: str = "run-1"
    about: dict[str, Any] = field(default_factory=lambda: {"run": "run-1", "agent": None, "attempt": 1})


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collector() as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.endpoint)
        traces.begin(found.endpoint)
        yield found
        traces.end()


def test_where_no_endpoint_is_configured_nothing_that_makes_traces_is_loaded() -> None:
    """Some of OpenTelemetry is loaded by redis-py where it is installed, which measures nothing by itself."""
    program = f"""
import sys, workers.tasks, workers.reports, workers.dashboard.server
from workers import traces
traces.begin("")
assert traces.new("{CALLER}") is None
print([name for name in sys.modules if name.startswith(("opentelemetry.exporter", "opentelemetry.sdk.trace"))])
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert said.strip() == "[]"


def test_where_no_endpoint_is_configured_a_span_is_nothing() -> None:
    run = Run(CALLER)

    assert traces.span("dispatch", run) is traces.span("deliver", run)
    traces.draw("plan", run, NOW, NOW)


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with capture_logs() as logged:
        traces.begin("http://127.0.0.1:4318")

    assert "install terraslot[traces]" in logged[0]["event"]
    assert traces.new(CALLER) is None


@pytest.mark.usefixtures("exported")
def test_a_run_joins_the_trace_of_its_caller() -> None:
    assert traces.new(CALLER) == CALLER


@pytest.mark.usefixtures("exported")
@pytest.mark.parametrize(
    "hostile",
    [
        None,
        7,
        {"traceparent": CALLER},
        "",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        f"{CALLER}-more",
        f"{CALLER}\n",
        CALLER.upper(),
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01",
        "00-" + "a" * 1_000_000,
        "<script>alert(1)</script>",
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_traceparent_is_ignored(hostile: object) -> None:
    begun = traces.new(hostile)

    assert begun is not None
    assert len(begun) == len(CALLER)
    assert begun[3:35] not in (CALLER[3:35], "0" * 32)
    assert begun[36:52] == "0" * 16


@pytest.mark.usefixtures("exported")
def test_a_run_whose_caller_or_sampler_wants_no_trace_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert traces.new(f"{CALLER[:-2]}00") is None

    traces.end()
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    traces.begin("configured")
    assert (traces.new(None), traces.new(CALLER)) == (None, CALLER)


def test_the_run_is_the_root_below_its_caller_and_all_else_is_below_it(exported: Collector) -> None:
    own, joined = Run(traces.new(None)), Run(CALLER, id="run-2")
    for run in (own, joined):
        traces.draw("plan", run, NOW - timedelta(seconds=2), NOW, outcome="succeeded")
        traces.draw_run(run, NOW - timedelta(seconds=3), NOW, error="terraform_failed")
    traces.end()

    plan, root, other_plan, other = exported.spans
    assert (root.parent, plan.parent) == ("", root.id)
    assert (other.parent, other_plan.parent) == (CALLER[36:52], other.id)
    assert {other.trace, other_plan.trace} == {CALLER[3:35]} != {root.trace}
    assert (plan.error, root.error) == (None, "terraform_failed")
    assert plan.about == {"terraslot.run": "run-1", "terraslot.attempt": 1, "terraslot.outcome": "succeeded"}
    assert plan.ended - plan.began == pytest.approx(2)
    assert exported.services == {"terraslot"}


def test_a_block_that_raises_is_marked_by_the_kind_of_its_error_and_not_by_its_words(exported: Collector) -> None:
    with pytest.raises(ValueError, match="s3cret"), traces.span("dispatch", Run(CALLER)):
        raise ValueError("s3cret")
    with traces.span("dispatch", Run(None)):
        pass  # a run that is not traced
    traces.end()

    [span] = exported.spans
    assert (span.name, span.error) == ("dispatch", "ValueError")


def test_a_collector_that_is_away_delays_neither_a_span_nor_the_end_of_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    traces.begin("http://127.0.0.1:9")
    began = datetime.now(UTC)
    for _ in range(10_000):
        traces.draw("plan", Run(CALLER), NOW, NOW)
    traces.end()

    assert datetime.now(UTC) - began < timedelta(seconds=12)
