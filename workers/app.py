"""The Celery app of the control plane: broker, queues, routes and the settings that keep work from being lost.

Control tasks are short and safe to run twice, so they are acknowledged late: a message that a killed worker held is
delivered again after ``VISIBILITY_TIMEOUT``. Orders to agents never pass through these queues.
"""

import base64
import json
import sys
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery import Celery, bootsteps, signals
from celery.app import trace
from celery.exceptions import Ignore
from kombu import Exchange, Queue
from kombu.serialization import dumps
from kombu.utils.uuid import uuid

from beat_schedule import BEAT_SCHEDULE
from workers.protocol import names
from workers.settings import Settings, settings

# Seconds until a message that a killed worker held is delivered again: far above what a control task takes.
VISIBILITY_TIMEOUT = 600
# The longest ``confirm_timeout``: a result has to outlive the wait for a person.
RESULT_LIFETIME = timedelta(days=30)
# A worker's task events are published at this interval: Flower shows them in time, and few round trips are spent.
EVENTS_SECONDS = 0.5
_NO_HEADERS: Mapping[str, Any] = {}
_TRANSPORT = {
    "visibility_timeout": VISIBILITY_TIMEOUT,
    # Keys of its own: no other Celery on this database redelivers these messages as lost.
    "unacked_key": "terraslot.unacked",
    "unacked_index_key": "terraslot.unacked_index",
    "unacked_mutex_key": "terraslot.unacked_mutex",
    # Every queue that a sender may choose by a priority is read, whatever steps the sender's own app has.
    "priority_steps": list(range(10)),
    "socket_keepalive": True,
    "health_check_interval": 30,
}


def direct_queue(name: str) -> Queue:
    """Return a queue on the default exchange: it needs no binding in Redis, and is faster to send to."""
    return Queue(name, Exchange(""), routing_key=name)


def message(
    app: Celery, task: str, kwargs: dict[str, Any], queue: str, headers: Mapping[str, Any] = _NO_HEADERS, **shown: str
) -> str:
    """Return what ``app.send_task`` puts into a queue on the default exchange, for a task without a result.

    So a message can be sent in one round trip with others, and with what is no message. ``headers`` are added to
    Celery's own. ``shown``: ``argsrepr`` and ``kwargsrepr``, which Flower and logs show.
    """
    made = app.amqp.as_task_v2(uuid(), task, kwargs=kwargs, ignore_result=True, **shown)
    content_type, encoding, body = dumps(made.body, "json")
    delivery = {
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": queue},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": uuid(),
    }
    return json.dumps(
        {
            "body": base64.b64encode(body.encode()).decode(),
            "content-encoding": encoding,
            "content-type": content_type,
            "headers": {**made.headers, **headers},
            "properties": made.properties | delivery,
        }
    )


class BatchedEvents(bootsteps.StartStopStep):
    """Publishes a worker's task events in batches; one by one they take half of its loop's time."""

    requires = ("celery.worker.consumer.events:Events",)

    def start(self, consumer: Any) -> None:
        """Replace Celery's own publishing; called again after a lost connection."""
        consumer.event_dispatcher.on_send_buffered = None
        self._timer = consumer.timer.call_repeatedly(EVENTS_SECONDS, consumer.event_dispatcher.flush)

    def stop(self, consumer: Any) -> None:
        """Publish the remaining events."""
        self._timer.cancel()
        consumer.event_dispatcher.flush()


class BriefInfo(ExceptionInfo):
    """What Celery keeps of an exception in a task; no traceback of ``Ignore``, which is how every run is submitted.

    Celery builds two of one, for a log of debugging, and they take longer than to enter the run.
    """

    def __init__(self, exc_info: Any = None, internal: bool = False) -> None:
        kind, error, _ = exc_info or sys.exc_info()
        if not isinstance(error, Ignore):
            super().__init__(exc_info, internal)
            return
        self.type, self.internal, self.traceback = kind, internal, ""
        self.exception = ExceptionWithTraceback(error, "")


trace.ExceptionInfo = BriefInfo


def build_app(name: str, queues: list[str], include: list[str], config: Settings | None = None) -> Celery:
    """Return a Celery app of the control plane that consumes ``queues`` and knows the tasks of ``include``."""
    config = config or settings()
    app = Celery(name, include=include, set_as_current=False)
    app.conf.update(_configuration(config), **_servers(config), task_queues=[direct_queue(queue) for queue in queues])
    app.steps["consumer"].add(BatchedEvents)
    return app


def _servers(config: Settings) -> dict[str, Any]:
    broker, broker_tls, broker_options = config.broker.celery()
    backend, backend_tls, backend_options = config.redis.celery()
    return {
        "broker_url": broker,
        "broker_use_ssl": broker_tls or None,
        "broker_transport_options": _TRANSPORT | broker_options,
        "result_backend": backend,
        "redis_backend_use_ssl": backend_tls or None,
        "result_backend_transport_options": backend_options,
    }


def _configuration(config: Settings) -> dict[str, Any]:
    return {
        "task_default_queue": names.SUBMIT_QUEUE,
        "task_default_exchange": "",
        "task_default_routing_key": names.SUBMIT_QUEUE,
        "task_routes": {
            names.PLAN: {"queue": direct_queue(names.SUBMIT_QUEUE)},
            names.PLAN_AND_APPLY: {"queue": direct_queue(names.SUBMIT_QUEUE)},
            # Behind the outcomes that it would send again: see workers.services.runs.deliver.
            names.DELIVERIES: {"queue": direct_queue(names.SUBMIT_QUEUE)},
            **{task: {"queue": direct_queue(names.CLUSTER_QUEUE)} for task in names.CLUSTER_TASKS},
            "terraform.*": {"queue": direct_queue(names.CONTROL_QUEUE)},
            "terraslot.*": {"queue": direct_queue(names.CONTROL_QUEUE)},
        },
        "task_acks_late": True,
        "task_create_missing_queues": True,
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "result_expires": RESULT_LIFETIME,
        "result_backend_always_retry": True,
        "worker_disable_prefetch": True,
        "worker_pool": "threads",
        "worker_concurrency": 8,
        "worker_send_task_events": True,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "broker_connection_retry_on_startup": True,
        "beat_schedule": BEAT_SCHEDULE,
        "beat_schedule_filename": str(config.home / "beat-schedule"),
        "timezone": "UTC",
    }


@signals.setup_logging.connect
def _configure_logging(**_: Any) -> None:
    from workers.logs import configure  # noqa: PLC0415 - only a worker configures its process's logging

    configure(settings().log_level, settings().log_format)


@signals.worker_init.connect
def _observe(**_: Any) -> None:
    from workers import metrics, traces  # noqa: PLC0415 - only a worker is observed

    metrics.serve(settings().metrics_address, settings().metrics_port)
    traces.begin(settings().traces_to)


app = build_app("terraslot", [*names.REQUEST_QUEUES, names.CLUSTER_QUEUE], ["workers.tasks"])
