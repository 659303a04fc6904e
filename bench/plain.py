"""Plain Celery on the system's broker, with its transport options and no task events: the baseline of comparisons.

``python -m bench.plain NODE`` is a worker of it. One task does nothing, one passes on a message to a second one.
"""

from __future__ import annotations

import os
import sys

from celery import Celery

from bench.pipe import PIPE, say
from workers.app import build_app, direct_queue
from workers.settings import Settings

NOTHING, FIRST_HOP, SECOND_HOP = "bench.nothing", "bench.first_hop", "bench.second_hop"
QUEUES = {name: direct_queue(name) for name in (NOTHING, FIRST_HOP, SECOND_HOP)}


def app() -> Celery:
    """Return the application; its tasks write a line to the pipe that the environment names."""
    celery = build_app("bench-plain", list(QUEUES), [], Settings())
    celery.conf.worker_send_task_events = False

    def tell() -> None:
        say(os.environ[PIPE], "plain")

    def pass_on() -> None:
        send(celery, SECOND_HOP)

    for name, body in ((NOTHING, tell), (FIRST_HOP, pass_on), (SECOND_HOP, tell)):
        celery.task(name=name, ignore_result=True)(body)
    return celery


def send(celery: Celery, task: str) -> None:
    """Enqueue a task."""
    celery.send_task(task, queue=QUEUES[task], ignore_result=True)


if __name__ == "__main__":
    app().Worker(
        hostname=sys.argv[1],
        pool="threads",
        concurrency=8,
        without_gossip=True,
        without_mingle=True,
        loglevel="WARNING",
    ).start()
