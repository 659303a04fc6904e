"""The control plane's services on a real Valkey and SQLite, with agents and pods that tests move by hand.

An agent here takes its orders from its real queue and speaks to the real slot map and to the report service: what a
real one does, one step at a time, so that every race and every loss can be held open.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.services.monitor import Monitor, monitoring
from workers.app import build_app
from workers.core.approval import Actor
from workers.core.pods import Pod, PodPhase, SafeToEvict
from workers.core.pools import PoolLimits, PoolTimeouts
from workers.protocol import names
from workers.protocol.encryption import new_key
from workers.protocol.errors import TerraslotError, Unavailable
from workers.protocol.kinds import RunKind
from workers.protocol.messages import Changes, Order, PhaseFinished, PhaseStarted
from workers.protocol.sources import DirectorySource
from workers.protocol.version import PROTOCOL
from workers.services import workspaces
from workers.services.pools import manage as pools
from workers.services.runs import auto_apply, decide, dispatch, submit
from workers.services.runs import report as reports
from workers.services.runs.submit import RunRequest
from workers.services.system import System
from workers.settings import Settings
from workers.slots.slot_map import SlotMap
from workers.specs.pools import PoolSpec
from workers.specs.workspaces import WorkspaceSpec
from workers.store.database import Database
from workers.store.models import Run

POOL = "default"


@dataclass
class Pods:
    """Pods by name, changed by tests. ``broken``: the cluster is unreachable; ``refusal``: it creates none.

    ``made_from``: the configuration that pods are made from now. ``passed``: seconds that have passed, for all pods.
    """

    on_this_machine = True
    moves_pods = False
    list_is_authoritative = True
    deployments = None

    pods: dict[str, Pod] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    secrets: dict[str, Any] = field(default_factory=dict)
    broken: bool = False
    keep_deleting: bool = False
    made_from: str | None = None
    refusal: TerraslotError | None = None
    left: list[bytes] = field(default_factory=list)
    ahead: float | None = None
    passed: float = 0.0

    def clock(self) -> float | None:
        """Return this machine's time, ``ahead`` by so many seconds; None where it has no clock of its own."""
        return None if self.ahead is None else time.time() + self.ahead

    def cordoned_nodes(self) -> frozenset[str] | None:
        return None

    def node_condition(self, node: str) -> str | None:  # noqa: ARG002 - the protocol's
        return None

    def start_problem(self, pod: Pod) -> str | None:  # noqa: ARG002 - the protocol's
        return None

    def list(self, pool: str) -> list[Pod]:
        self._reach()
        return [replace(pod, age=pod.age + self.passed) for pod in self.pods.values() if pod.pool == pool]

    def create(self, spec: PoolSpec, name: str) -> None:
        self._reach()
        pod = Pod(name, f"uid-{name}", spec.name, -self.passed, PodPhase.RUNNING, template=self.made_from)
        self.pods.setdefault(name, pod)

    def template(self, spec: PoolSpec) -> str | None:  # noqa: ARG002 - the protocol's
        return self.made_from

    def create_all(self, spec: PoolSpec, names: list[str]) -> dict[str, TerraslotError]:
        if self.refusal:
            return dict.fromkeys(names, self.refusal)
        for name in names:
            self.create(spec, name)
        return {}

    def delete(self, pod: Pod, *, force: bool = False) -> Pod | None:  # noqa: ARG002 - the protocol's
        self._reach()
        if self.pods.get(pod.name) is None or self.pods[pod.name].uid != pod.uid:
            return None
        self.deleted.append(pod.name)
        if self.keep_deleting:
            return self.pods[pod.name]
        del self.pods[pod.name]
        return None

    def left_reports(self, pool: str) -> Iterator[bytes]:  # noqa: ARG002 - the protocol's
        while self.left:
            yield self.left[0]
            del self.left[0]

    def orphaned_pods(self, pools: Collection[str]) -> list[Pod]:
        self._reach()
        return [pod for pod in self.pods.values() if pod.pool not in pools]

    def set_safe_to_evict(self, changes: Sequence[SafeToEvict]) -> dict[str, TerraslotError]:
        self._reach()
        for change in changes:
            self.pods[change.pod.name] = replace(self.pods[change.pod.name], safe_to_evict=change.safe)
        return {}

    def put_secret(self, spec: PoolSpec, content: str) -> None:
        self._reach()
        self.secrets[spec.name] = json.loads(content)

    def delete_secret(self, spec: PoolSpec) -> None:
        self._reach()
        self.secrets.pop(spec.name, None)

    def check(self, spec: PoolSpec) -> None:  # noqa: ARG002 - the protocol's
        self._reach()
        if self.refusal:
            raise self.refusal

    def _reach(self) -> None:
        if self.broken:
            raise Unavailable("The cluster does not answer.")


@dataclass
class HandAgent:
    """An agent that does only what a test tells it to."""

    control: ControlPlane
    name: str
    instance_id: str = f"{PROTOCOL}.life-1"

    def register(self) -> HandAgent:
        self.control.slots.register(self.name, self.instance_id)
        return self

    def orders(self) -> list[Order]:
        """Take all messages from the agent's queue, as a worker would."""
        queue, taken = names.orders_queue(POOL, self.name), []
        while (message := self.control.redis.rpop(queue)) is not None:
            envelope = json.loads(message)
            _, kwargs, _ = json.loads(base64.b64decode(envelope["body"]))
            if envelope["headers"]["task"] == names.EXECUTE_ORDER:
                taken.append(Order.model_validate(kwargs["order"]))
        return taken

    def order(self) -> Order:
        (order,) = self.orders()
        return order

    def start(self, order: Order) -> bool:
        """Redeem an order's token; report the start if it was this one."""
        started = self.control.slots.redeem(self.name, order.run, order.token)
        if started:
            self._report(PhaseStarted, order, phase=order.phase)
        return started

    def finish(self, order: Order, outcome: str = "succeeded", **facts: Any) -> None:
        facts.setdefault("changed", order.phase == "plan" and outcome == "succeeded")
        facts.setdefault("changes", Changes(add=1) if facts["changed"] else Changes())
        self._report(PhaseFinished, order, phase=order.phase, outcome=outcome, **facts)

    def work(self, **facts: Any) -> Order:
        """Take the one order that is there, start it and finish it."""
        order = self.order()
        assert self.start(order)
        self.finish(order, **facts)
        return order

    def _report(self, kind: type[Any], order: Order, **facts: Any) -> None:
        report = kind(pool=POOL, agent=self.name, run=order.run, token=order.token, **facts)
        reports.take(self.control.system, report)


@dataclass
class ControlPlane:
    """The services' system, and short words for what tests do with it."""

    system: System
    pods: Pods
    redis: redis.Redis
    offset: timedelta = timedelta()
    count: int = 0

    @property
    def slots(self) -> SlotMap:
        return self.system.slots(POOL)

    def spec(self) -> PoolSpec:
        return self.system.pool(POOL)

    def workspace(self, name: str = "net", **facts: Any) -> str:
        spec = WorkspaceSpec(name=name, source=DirectorySource(path=str(self.system.settings.home / "code")), **facts)
        workspaces.create(self.system, spec)
        return name

    def submit(
        self,
        kind: RunKind = RunKind.PLAN_AND_APPLY,
        workspace: str = "net",
        *,
        actor: Actor | None = None,
        **options: Any,
    ) -> Run:
        self.count += 1
        task = {
            "name": f"terraform.{kind}",
            "args": [],
            "kwargs": {"workspace": workspace},
            "options": {"task_id": f"run-{self.count}"},
        }
        request = RunRequest(workspace=workspace, **options)
        run = submit.submit(self.system, f"run-{self.count}", kind, request, task, actor=actor)
        return self.run(run.id)

    def run(self, run_id: str) -> Run:
        return decide.get(self.system, run_id)

    def agent(self, name: str = "default-1") -> HandAgent:
        """Create a pod and let its agent register."""
        self.pods.create(self.spec(), name)
        agent = HandAgent(self, name).register()
        dispatch.dispatch(self.system, POOL)
        return agent

    def celery_state(self, run_id: str) -> str:
        return self.system.celery.AsyncResult(run_id).state

    def deliveries(self) -> list[str]:
        """Take the ids of the tasks that were sent for delivery, oldest first."""
        sent = []
        while (message := self.redis.rpop(names.SUBMIT_QUEUE)) is not None:
            sent.append(json.loads(message)["headers"]["id"])
        return sent

    def quiet(self) -> bool:
        """Whether every slot is idle and no lease is left (F13)."""
        stats = self.slots.stats()
        return stats.used == 0 and stats.idle == stats.total


def carry_out_at_once(system: System) -> None:
    """Let the control worker be another one than this process, and quick: it does what it is asked when it is asked."""
    send, carry_out = (
        system.celery.send_task,
        {
            names.DISPATCH: dispatch.dispatch_requested,
            names.AUTO_APPLY: auto_apply.order_apply,
        },
    )

    def send_task(name: str, args: Sequence[str] = (), **options: Any) -> Any:
        return carry_out[name](system, *args) if name in carry_out else send(name, args, **options)

    system.celery.send_task = send_task  # type: ignore[method-assign]


@pytest.fixture
def control(tmp_path: Path, redis_url: str) -> Iterator[ControlPlane]:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "main.tf").write_text('output "hello" { value = "world" }\n')
    settings = Settings(home=tmp_path, redis_url=redis_url, broker_url="", database_url="", encryption_keys=new_key())
    celery = build_app("test", [names.SUBMIT_QUEUE, names.CONTROL_QUEUE], [], settings)
    pods, client = Pods(), redis.Redis.from_url(redis_url)
    system = System(settings, Database(settings.database), client, client, celery, {"local": pods})
    system.database.migrate()
    carry_out_at_once(system)
    pools.ensure(
        system,
        PoolSpec(
            name=POOL,
            limits=PoolLimits(max_agents=5, idle_timeout=0),
            timeouts=PoolTimeouts(silent=5, dead=20, redeem=30),
        ),
    )
    yield ControlPlane(system, pods, client)
    system.events.flush()  # what is sent later is heard by the next test, whose runs have the same ids
    system.database.dispose()
    celery.close()
    client.close()


@pytest.fixture
def monitor(control: ControlPlane) -> Iterator[Monitor]:
    with monitoring(control.system) as monitor:
        yield monitor


@pytest.fixture
def clock_ahead(control: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return what moves all clocks ahead by so many seconds in all: as if so much time had passed."""
    ahead = [0.0]
    real = System.now

    def server_time() -> float:
        seconds, microseconds = control.redis.time()
        return seconds + microseconds / 1e6 + ahead[0]

    monkeypatch.setattr(System, "now", lambda self: real(self) + timedelta(seconds=ahead[0]))
    monkeypatch.setattr(System, "slots", lambda self, pool: SlotMap(self.redis, pool, clock=server_time))

    def move(seconds: float) -> None:
        ahead[0] = control.pods.passed = seconds

    return move
