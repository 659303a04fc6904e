"""What a team would write instead: a task that runs Terraform under a redis-py lock; on Celery, on RQ, on Dramatiq.

``python -m bench.alternatives NAME`` is a worker of the server that :data:`URL` names: with each library's defaults,
and as many places as an agent has slots. The task executes ``init``, ``plan`` and ``apply`` where the configuration is,
and gives neither outputs nor a log back; all that a run is besides (a record, a confirmation, limits, other machines)
would be more code.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis
from celery import Celery
from redis.lock import Lock

PLACES = 3
URL = "BENCH_REDIS_URL"  # it holds a password: command lines can be read by every process
_QUEUE = "alternatives"
_COMMANDS = (
    ("init", "-input=false"),
    ("plan", "-input=false", "-out=plan.tfplan"),
    ("apply", "-input=false", "plan.tfplan"),
)
_LONGEST = 3600.0  # seconds
_ANSWERS = 60.0

Wait = Callable[[], Any]


def run(directory: str, program: str | None, environment: dict[str, str]) -> None:
    """Run Terraform in a directory, one at a time; without a program, nothing."""
    with Lock(redis.Redis.from_url(os.environ[URL]), f"{_QUEUE}:lock:{directory}", timeout=_LONGEST):
        for command in _COMMANDS if program else ():
            subprocess.run(
                [program, *command], cwd=directory, env=environment, check=True, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip


@dataclass(frozen=True)
class Alternative:
    """A library with a worker. ``enqueue`` takes what :func:`run` takes, and returns what waits for the end."""

    name: str
    enqueue: Callable[..., Wait]


@contextmanager
def running(url: str) -> Iterator[list[Alternative]]:
    """Run a worker of each library on a Redis server until the block ends; they have taken a task each."""
    names = list(_KINDS)
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    workers = [
        subprocess.Popen([sys.executable, "-m", __name__, name], env=os.environ | {URL: url}, **quiet) for name in names
    ]
    try:
        found = [Alternative(name, _KINDS[name].client(url)) for name in names]
        for each in found:
            each.enqueue("/", None, {})()
        yield found
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            with suppress(subprocess.TimeoutExpired):
                worker.wait(10)
            worker.kill()
            worker.wait()


def _celery(url: str) -> tuple[Celery, Any]:
    app = Celery(_QUEUE, broker=url, backend=url, set_as_current=False)
    app.conf.update(task_default_queue=f"{_QUEUE}:celery", broker_connection_retry_on_startup=True)
    return app, app.task(name="alternatives.run")(run)


def _celery_client(url: str) -> Callable[..., Wait]:
    _, task = _celery(url)
    return lambda *given: partial(task.delay(*given).get, timeout=_ANSWERS)


def _celery_worker(url: str) -> None:
    app, _ = _celery(url)
    app.Worker(concurrency=PLACES, hostname="alternatives@bench", loglevel="ERROR").start()


def _rq_client(url: str) -> Callable[..., Wait]:
    from rq import Queue  # noqa: PLC0415 - a worker of another library needs none of it

    queue = Queue(_QUEUE, connection=redis.Redis.from_url(url))

    def enqueue(*given: Any) -> Wait:
        job = queue.enqueue(run, *given)
        return lambda: _succeeded(job.latest_result(timeout=int(_ANSWERS)))

    return enqueue


def _succeeded(result: Any) -> None:
    if result is None or result.type is not result.Type.SUCCESSFUL:
        raise RuntimeError(f"RQ's job failed: {result and result.exc_string}")


def _rq_worker(url: str) -> None:
    from rq.worker_pool import WorkerPool  # noqa: PLC0415

    WorkerPool([_QUEUE], connection=redis.Redis.from_url(url), num_workers=PLACES).start(logging_level="ERROR")


def _dramatiq(url: str) -> tuple[Any, Any]:
    import dramatiq  # noqa: PLC0415
    from dramatiq.brokers.redis import RedisBroker  # noqa: PLC0415
    from dramatiq.results import Results  # noqa: PLC0415
    from dramatiq.results.backends import RedisBackend  # noqa: PLC0415

    broker = RedisBroker(url=url, namespace=f"{_QUEUE}:dramatiq")
    broker.add_middleware(Results(backend=RedisBackend(url=url, namespace=f"{_QUEUE}:results")))
    return broker, dramatiq.actor(run, broker=broker, queue_name=_QUEUE, store_results=True, max_retries=0)


def _dramatiq_client(url: str) -> Callable[..., Wait]:
    broker, actor = _dramatiq(url)

    def enqueue(*given: Any) -> Wait:
        message = actor.send(*given)
        backend = next(each.backend for each in broker.middleware if hasattr(each, "backend"))
        return lambda: backend.get_result(message, block=True, timeout=int(1000 * _ANSWERS))

    return enqueue


def _dramatiq_worker(url: str) -> None:
    import signal  # noqa: PLC0415

    from dramatiq import Worker  # noqa: PLC0415

    worker = Worker(_dramatiq(url)[0], worker_threads=PLACES)
    worker.start()
    signal.sigwait([signal.SIGTERM])


@dataclass(frozen=True)
class _Kind:
    client: Callable[[str], Callable[..., Wait]]
    worker: Callable[[str], None]


_KINDS = {
    "Celery": _Kind(_celery_client, _celery_worker),
    "RQ": _Kind(_rq_client, _rq_worker),
    "Dramatiq": _Kind(_dramatiq_client, _dramatiq_worker),
}

if __name__ == "__main__":
    _KINDS[sys.argv[1]].worker(os.environ[URL])
