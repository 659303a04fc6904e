"""The Celery tasks of an agent: an order to execute, and a request to cancel one."""

from typing import Any

from celery import Task, shared_task
from celery.worker.request import Request

from workers.protocol import names


class RedactedRequest(Request):
    """A task request whose contents, variables among them, show in no log."""

    @property
    def argsrepr(self) -> str:
        """What logs show of the arguments."""
        return "(…)"

    @property
    def kwargsrepr(self) -> str:
        """What logs show of the keyword arguments."""
        return "{…}"


class AgentTask(Task):
    """A task of the agent whose application it belongs to."""

    abstract = True
    Request = RedactedRequest
    send_events = False


@shared_task(bind=True, base=AgentTask, name=names.EXECUTE_ORDER)
def execute(self: AgentTask, order: dict[str, Any]) -> None:
    """Execute one phase of a run, if its lease can be redeemed."""
    headers = {"attempt": self.request.get(names.ATTEMPT_HEADER), "trace": self.request.get(names.TRACE_HEADER)}
    self.app.agent.execute(order, headers)


@shared_task(bind=True, base=AgentTask, name=names.CANCEL_ORDER)
def cancel(self: AgentTask, request: dict[str, Any]) -> None:
    """End a phase that executes here."""
    self.app.agent.cancel(request)
