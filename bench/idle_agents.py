"""Agents that redeem an order and report its start and end at once, so that everything but Terraform is measured.

``python -m bench.idle_agents NODE`` is one Celery worker that is all of them.
"""

from __future__ import annotations

import sys
from typing import Any

from celery import Celery, Task

from bench.system import POOL
from workers.app import build_app
from workers.protocol import names
from workers.protocol.messages import Order, PhaseFinished, PhaseStarted, Report
from workers.settings import Settings
from workers.slots.connection import connect
from workers.slots.report_queue import ReportQueue
from workers.slots.slot_map import SlotMap

AGENTS = [f"idle-{number}" for number in range(8)]


def app() -> Celery:
    """Return the application; it takes the orders of every agent."""
    config = Settings()
    client = connect(config.redis)
    slots, reports = SlotMap(client, POOL), ReportQueue(client, POOL)
    for agent in AGENTS:
        slots.register(agent, "life-1")
    celery = build_app("bench-idle", [names.orders_queue(POOL, agent) for agent in AGENTS], [], config)

    def report(what: Report) -> None:
        reports.put(what.model_dump_json(exclude_defaults=True).encode())

    def execute(task: Task, order: dict[str, Any]) -> None:
        agent = task.request.delivery_info["routing_key"].rpartition(":")[2]
        given = Order.model_validate(order)
        if slots.redeem(agent, given.run, given.token):
            said = {"pool": POOL, "agent": agent, "run": given.run, "token": given.token, "phase": given.phase}
            report(PhaseStarted(**said))
            report(PhaseFinished(**said, outcome="succeeded"))

    celery.task(name=names.EXECUTE_ORDER, bind=True, ignore_result=True, acks_late=False)(execute)
    return celery


if __name__ == "__main__":
    app().Worker(
        hostname=sys.argv[1],
        pool="threads",
        concurrency=8,
        without_gossip=True,
        without_mingle=True,
        loglevel="WARNING",
    ).start()
