"""What Redis holds when a pool's life is over: what it held before, and what ends by itself."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable

import redis

from tests.services.conftest import POOL, ControlPlane
from workers.core.lifecycle import RunStatus
from workers.protocol import names
from workers.protocol.log_lines import LogLine
from workers.services import workspaces
from workers.services.pools.delete import delete_pool
from workers.services.runs import decide, orders
from workers.services.runs.wake import request_agents
from workers.services.scaling.cycle import cycle
from workers.slots.log_stream import RunLog
from workers.slots.report_queue import ReportQueue, mark_read

Clock = Callable[[float], None]
# Keys that end by themselves: the results of tasks after 30 days, logs after seven; all others within an hour.
_FOR_A_WHILE = {
    "results": r"celery-task-meta-run-\d+",
    "logs, and what their writers have written": r"ts:\{default\}:log:run-\d+(:[0-9a-f]+|:beginning)?",
    "what a report reader took last": r"ts:\{default\}:reports:taken",
    "that reports are read": r"terraslot\.reports\.reader",
    "locks, and that another round is asked for": r"ts:\{default\}:lock:\w+(:wanted)?",
    "that a message is under way": r"ts:\{default\}:wake-up:\w+",
    "orders to an agent that was gone when they were sent": r"ts:\{default\}:orders:default-2",
}


def kept(client: redis.Redis) -> dict[str, int]:
    """All keys with their time to live in seconds, -1 for ever; but not the queues that no worker consumes here."""
    keys = {key.decode() for key in client.scan_iter()} - {names.SUBMIT_QUEUE, names.CONTROL_QUEUE, names.CLUSTER_QUEUE}
    return {key: client.ttl(key) for key in keys}


def test_redis_holds_after_a_pools_life_what_it_held_before(control: ControlPlane) -> None:
    before = kept(control.redis)
    control.workspace(variables={"region": "in-clear"})
    agent = control.agent("default-1")
    applied = control.submit()
    agent.work()
    decide.confirm(control.system, applied.id)
    agent.work()
    RunLog(control.redis, POOL, applied.id).append([LogLine("plan", "a line", 1.0)])
    ReportQueue(control.redis, POOL).put(b"a report")
    ReportQueue(control.redis, POOL).take(1)
    mark_read(control.redis)
    lock = control.system.lock(POOL, "cycle")
    lock.request("a process that dies")
    assert not lock.request("one that asks for another round")
    lock.drop("a process that dies")
    control.slots.drain("default-1")
    waiting = _lost_with_its_order(control)
    decide.cancel(control.system, waiting)
    cycle(control.system, POOL)
    request_agents(control.system, POOL)

    workspaces.delete(control.system, "net")
    delete_pool(control.system, POOL)

    left = kept(control.redis)
    assert {key for key, seconds in left.items() if seconds == -1} == set(before)
    assert [key for key in left if not any(re.fullmatch(known, key) for known in _FOR_A_WHILE.values())] == []
    assert all(
        seconds <= 3600
        for key, seconds in left.items()
        if not re.search("celery-task-meta|:log:run-[0-9]+(:beginning)?$", key)
    )


def _lost_with_its_order(control: ControlPlane) -> str:
    """Lose an agent that has not taken its order; return the run."""
    control.agent("default-2")
    run = control.submit()
    queue = names.orders_queue(POOL, "default-2")
    (message,) = control.redis.lrange(queue, 0, -1)
    assert b"in-clear" in base64.b64decode(re.findall(rb'"body": "([^"]+)"', message)[0])
    assert 0 < control.redis.ttl(queue) <= 600
    del control.pods.pods["default-2"]
    cycle(control.system, POOL)
    assert control.run(run.id).status is RunStatus.PENDING
    assert not control.redis.exists(queue)
    orders.send_cancel(control.system, run, decide.CancelMode.INTERRUPT)  # of a process that was late
    return run.id
