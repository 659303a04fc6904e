"""What the processes of the control plane count and time, for Prometheus.

The metrics are a table; docs/reference.md is generated from it. They cost a comparison until :func:`serve` is called,
which a worker does where a port is configured: prometheus_client is loaded only then. Labels are bounded: pools, and
words of this program; never a workspace, a run, or what somebody wrote. Each process counts what it did itself, from
its start; its threads share one registry. Agents serve nothing: what they did is counted where their reports are taken.

What is true at this moment rather than what has happened is read by Flower: :mod:`workers.dashboard.metrics`.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import structlog

from workers.slots import connection

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

log = structlog.get_logger(__name__)

# Seconds. A call of the slot map takes less than a millisecond, a phase may take an hour, a run may wait for a day.
_CALL = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
_STEP = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_PHASE = (1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)
_WAIT = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 86400)


@dataclass(eq=False)
class Metric:
    """One metric, its labels, and what it says. It becomes one of prometheus_client's when it is served."""

    name: str
    says: str
    labels: tuple[str, ...]

    kind: ClassVar[str]

    def __post_init__(self) -> None:
        self._served: Any = None
        self._of: dict[tuple[str, ...], Any] = {}

    def begin(self, served: Any) -> None:
        """Count from now on, in one of prometheus_client's metrics."""
        self._served, self._of = served, {}

    def child(self, labels: tuple[str, ...]) -> Any:
        """Return what counts for these labels: kept, since to look it up costs more than to count."""
        if (found := self._of.get(labels)) is None:
            found = self._of[labels] = self._served.labels(*labels)
        return found


class Count(Metric):
    """How often something has happened."""

    kind = "counter"

    def serve(self, registry: "CollectorRegistry") -> None:
        """Count from now on."""
        from prometheus_client import Counter  # noqa: PLC0415 - only a process that serves metrics needs it

        self.begin(Counter(self.name, self.says, self.labels, registry=registry))

    def add(self, *labels: str, number: int = 1) -> None:
        """Count what has happened just now."""
        if self._served is not None:
            self.child(labels).inc(number)


@dataclass(eq=False)
class Times(Metric):
    """How many seconds something took each time."""

    buckets: tuple[float, ...]

    kind = "histogram"

    def serve(self, registry: "CollectorRegistry") -> None:
        """Count from now on."""
        from prometheus_client import Histogram  # noqa: PLC0415

        self.begin(Histogram(self.name, self.says, self.labels, buckets=self.buckets, registry=registry))

    def add(self, seconds: float, *labels: str) -> None:
        """Count something that took so long; clocks that differ make no time negative."""
        if self._served is not None:
            self.child(labels).observe(max(0.0, seconds))

    @contextmanager
    def measured(self, *labels: str) -> Iterator[None]:
        """Count what is done in this block. Its last label is ``outcome``: done, or failed where it raises."""
        began, outcome = time.perf_counter(), "failed"
        try:
            yield
            outcome = "done"
        finally:
            self.add(time.perf_counter() - began, *labels, outcome)


SUBMITTED = Count("terraslot_runs_submitted_total", "Runs that were entered.", ("pool", "kind"))
FINISHED = Count(
    "terraslot_runs_finished_total",
    "Runs that are over, by their status, and why where they failed.",
    ("pool", "kind", "outcome", "reason"),
)
REQUEUED = Count("terraslot_runs_requeued_total", "Runs that lost their agent and are planned anew.", ("pool",))
WAITING = Times(
    "terraslot_run_waiting_seconds",
    "From a run's submission until it is given a slot, in its first attempt.",
    ("pool", "kind"),
    _WAIT,
)
ORDERS = Times(
    "terraslot_order_seconds",
    "From the order of a phase until its agent has reported that Terraform starts.",
    ("pool", "phase"),
    _STEP,
)
PHASES = Times(
    "terraslot_phase_seconds",
    "From the start of a phase until its end was reported.",
    ("pool", "phase", "outcome"),
    _PHASE,
)
REJECTED = Count("terraslot_reports_rejected_total", "Reports of a run's phase that could not be taken.", ("pool",))
DELIVERIES = Count(
    "terraslot_deliveries_total",
    "Outcomes on their way to callers: stored as a task's result, repeated as overdue, given up.",
    ("how",),
)
CYCLES = Times("terraslot_cycle_seconds", "Cycles of a pool: reconcile and scale.", ("pool", "outcome"), _STEP)
DECISIONS = Count("terraslot_scaling_decisions_total", "Decisions about a pool's size.", ("pool", "reason"))
PODS_FAILED = Count(
    "terraslot_pods_failed_total", "Pods that could not be created, or have not started.", ("pool", "step")
)
AGENTS_LOST = Count(
    "terraslot_agents_lost_total", "Agents that were gone while they held a run, and had not stopped.", ("pool",)
)
CALLS = Times("terraslot_redis_call_seconds", "Calls of the slot map, locks, queues and logs.", ("verb",), _CALL)

METRICS: tuple[Count | Times, ...] = (
    SUBMITTED, WAITING, ORDERS, PHASES, FINISHED, REQUEUED, DELIVERIES, REJECTED, AGENTS_LOST, PODS_FAILED, DECISIONS,
    CYCLES, CALLS,
)  # fmt: skip


def serve(address: str, port: int) -> None:
    """Count from now on, and serve what is counted; nothing where the port is 0.

    A port that can't be used is told in the log, and keeps no process from its work.
    """
    if not port:
        return
    from prometheus_client import REGISTRY, start_http_server  # noqa: PLC0415

    begin(REGISTRY)
    try:
        start_http_server(port, address, REGISTRY)
    except OSError as error:
        log.warning(
            "metrics are not served: set TERRASLOT_METRICS_PORT and TERRASLOT_METRICS_ADDRESS to what is free",
            address=address, port=port, error=error.strerror or str(error),
        )  # fmt: skip
    else:
        log.info("metrics are served", address=address, port=port)


def begin(registry: "CollectorRegistry") -> None:
    """Count from now on, in a registry."""
    for metric in METRICS:
        metric.serve(registry)
    connection.observe(lambda verb, seconds: CALLS.add(seconds, verb))
