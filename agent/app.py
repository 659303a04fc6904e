"""The agent's Celery application: its queue, and how messages are taken from it.

Orders are not acknowledged: the control plane sends again what a dying agent loses, and the token of its lease decides
whether it may still start. One thread more than there are slots takes cancels while all slots are busy. Celery's
gossip, mingle and heartbeat are off: the slot map has the agent's own heartbeat.
"""

import sys
from functools import cached_property
from typing import Any

import structlog
from celery import Celery, signals
from kombu import Exchange, Queue
from redis.exceptions import NoPermissionError

from agent import settings
from agent.programs import candidates
from agent.runtime import Agent
from agent.settings import AgentSettings
from agent.worker import AgentWorker, EventLoopTick
from workers.logs import configure
from workers.protocol import names
from workers.protocol.errors import InvalidRequest, Unavailable
from workers.protocol.messages import SINCE_0_2, Report
from workers.slots.connection import connect
from workers.slots.report_queue import ReportQueue

_CREDENTIALS = "agent.settings.PoolCredentials"  # kombu makes one


def _direct(name: str) -> Queue:
    """Return a queue on the default exchange, which leaves no keys of its own behind."""
    return Queue(name, Exchange(""), routing_key=name)


class AgentApp(Celery):
    """The Celery application of one agent."""

    def __init__(self, config: AgentSettings) -> None:
        super().__init__("terraslot-agent", set_as_current=False, include=["agent.tasks"])
        self.conf.update(_configuration(config))
        self._older_queue = True
        self._reports = ReportQueue(connect(config.redis, config.credentials), config.pool)
        self.steps["consumer"].add(EventLoopTick)
        self.settings = config

    @cached_property
    def agent(self) -> Agent:
        """The agent, made when a worker starts: a control command that loads this application needs none."""
        config = self.settings
        configure(config.log_level, config.log_format, pool=config.pool, agent=config.agent)
        return Agent(config, self._send, structlog.get_logger("agent"))

    @cached_property
    def Worker(self) -> type[AgentWorker]:  # noqa: N802 - Celery's name
        """The worker program: ``celery -A agent worker`` needs no further flags."""
        worker: type[AgentWorker] = self.subclass_with_self(AgentWorker)
        return worker

    def _send(self, report: Report, again: bool) -> None:
        if not self._reports.put(report.model_dump_json(exclude_defaults=True).encode()):
            raise Unavailable("too many reports of this pool wait")
        if self._older_queue or again:
            self._send_to_older(report)

    def _send_to_older(self, report: Report) -> None:
        """Send a report as control planes before 0.2 read it, if there may be one: later ones refuse the queue."""
        queue, content = _direct(names.REPORTS_QUEUE), report.wire()
        content = {name: value for name, value in content.items() if name not in SINCE_0_2}
        try:
            self.send_task(names.REPORT, args=[content], queue=queue, ignore_result=True, retry=False)
        except Exception as error:  # noqa: BLE001 - what counts is repeated
            self._older_queue = not any(isinstance(each, NoPermissionError) for each in (error, error.__cause__))
        else:
            self._older_queue = True


def _configuration(config: AgentSettings) -> dict[str, Any]:
    orders = names.orders_queue(config.pool, config.agent)
    url, tls, options = config.broker.celery(_CREDENTIALS if config.secret_dir else None)
    return {
        "broker_url": url,
        "broker_use_ssl": tls or None,
        # Whoever may publish could stop every agent, and have it read a queue of his choice.
        "worker_enable_remote_control": False,
        "task_queues": [_direct(orders)],
        "task_default_queue": orders,
        "task_default_exchange": "",
        "task_default_routing_key": orders,
        "task_create_missing_queues": False,
        "task_acks_late": False,
        "task_ignore_result": True,
        "accept_content": ["json"],
        "worker_disable_prefetch": True,
        "worker_prefetch_multiplier": 1,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_pool_limit": 2,
        "broker_transport_options": {
            "ack_emulation": False,
            "priority_steps": [0],
            # Unused while the emulation is off; if it were on, no other process may redeliver this pool's orders.
            "visibility_timeout": 7 * 86400,
            "unacked_key": f"ts:{{{config.pool}}}:unacked",
            "unacked_index_key": f"ts:{{{config.pool}}}:unacked_index",
            "unacked_mutex_key": f"ts:{{{config.pool}}}:unacked_mutex",
            "socket_keepalive": True,
            # A report waits for no connection: what counts is repeated.
            "max_retries": 1,
            "interval_start": 0,
            **options,
        },
    }


@signals.setup_logging.connect
def _keep_logging(**_: Any) -> None:
    """Keep the agent's logging: Celery would configure its own."""


def load() -> AgentApp:
    """Return the application that this process's environment describes; ends the process where that is invalid."""
    try:
        config = settings.read()
        candidates(config)
    except InvalidRequest as error:
        print(error, file=sys.stderr)  # noqa: T201 - there is no log yet
        raise SystemExit(2) from None
    return AgentApp(config)
