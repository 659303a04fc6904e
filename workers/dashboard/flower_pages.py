"""Flower's own pages and buttons, where a run or an agent is something else than what Flower takes it for.

A run has states of its own, in which Flower knows no button and no filter. To revoke or terminate it is to cancel it:
by the rules of the API, in the name of whoever does, and with the answer of the worker that has decided. An agent
obeys no remote control of Celery: its page shows what the slot map knows, and nothing is asked of it.
"""

import asyncio
import re
from functools import partial
from http import HTTPStatus
from typing import Any

from flower.api.control import ControlHandler
from flower.views.tasks import TasksDataTable, TaskView
from flower.views.workers import WorkerView
from tornado.web import HTTPError, authenticated, url

from workers.core.access import Caller, Scope
from workers.core.lifecycle import EXECUTING, HOLDING
from workers.dashboard.agent_details import is_agent
from workers.dashboard.api.handler import ApiHandler
from workers.dashboard.api.problems import Refused
from workers.protocol import names
from workers.services.runs import requests, views
from workers.services.system import System

_ACTIONS = b'<div class="detail-actions">'
_BUTTON = '<button class="btn btn-danger" id="task-{}" title="Cancel the run; Terraform is {}">{}</button>'
_REVOKE = _BUTTON.format("revoke", "interrupted", "Revoke").encode()
_TERMINATE = _BUTTON.format("terminate", "killed", "Terminate").encode()
_CANCELLABLE = frozenset(status.celery_state for status in HOLDING)
_RUNNING = frozenset(status.celery_state for status in EXECUTING)
# What Flower asks for where it means the tasks that are executed.
_STARTED = re.compile(r"(?<!\S)state:STARTED(?!\S)", re.IGNORECASE)
_ANY_RUNNING = f"({' OR '.join(f'state:{state}' for state in ('STARTED', *sorted(_RUNNING)))})"


def flower_pages(system: System, prefix: str) -> list[Any]:
    """Return Tornado's rules for the pages of Flower that differ, below a prefix of the dashboard."""
    ControlHandler.is_worker = _takes_commands
    return [
        url(rf"{prefix}/task/(.+)", TaskPage),
        url(rf"{prefix}/tasks/datatable", TaskTable),
        url(rf"{prefix}/worker/(.+)", WorkerPage),
        url(rf"{prefix}/api/task/(?:revoke|abort)/(.+)", Revoke, {"system": system}),
    ]


class TaskPage(TaskView):  # type: ignore[misc]
    """Flower's page of a task, with its buttons in the states of a run, too."""

    def render_string(self, template_name: str, **kwargs: Any) -> bytes:
        """Return the page; one that has no place for buttons any more is left as it is."""
        html: bytes = super().render_string(template_name, **kwargs)
        task = kwargs.get("task")
        if task is None or task.state not in _CANCELLABLE or self.application.options.read_only:
            return html
        buttons = _REVOKE + (_TERMINATE if task.state in _RUNNING else b"")
        return html.replace(_ACTIONS, _ACTIONS + buttons, 1)


class TaskTable(TasksDataTable):  # type: ignore[misc]
    """The rows of Flower's table of tasks: whoever looks for those that have started finds what Terraform executes."""

    def get_argument(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Return an argument of the request."""
        value = super().get_argument(name, *args, **kwargs)
        return _STARTED.sub(_ANY_RUNNING, value) if name == "search[value]" else value


class WorkerPage(WorkerView):  # type: ignore[misc]
    """Flower's page of a worker; that of an agent has no buttons."""

    @authenticated
    async def get(self, name: str) -> None:
        """Render the page; no agent is inspected."""
        known = self.application.workers.get(name)
        if known is not None and is_agent(known):
            self.render("worker.html", worker=known | {"name": name})
        else:
            await super().get(name)

    def render(self, *args: Any, **kwargs: Any) -> None:
        """Render a page: also that of an agent which became known while Flower waited for an answer of it."""
        if is_agent(kwargs.get("worker", {})):
            kwargs["read_only"] = True
        super().render(*args, **kwargs)


class Revoke(ApiHandler):
    """Flower's button to revoke or terminate a task."""

    def initialize(self, system: System) -> None:
        """Take where the runs are."""
        self._system = system

    async def post(self, task_id: str) -> None:
        """Cancel a run, with ``terminate`` by a kill; revoke a task that no worker has entered as one yet."""
        await self.answered(partial(self._revoke, task_id))

    async def _revoke(self, task_id: str) -> None:
        if self.application.options.read_only:
            raise Refused(HTTPStatus.FORBIDDEN, "Flower is read-only (--read-only).")
        caller = await self.caller_with(Scope.DECIDE)
        force = bool(self.get_argument("terminate", default=False, type=bool))
        self.write({"message": await asyncio.to_thread(self._cancel, task_id, caller, force)})

    def _refuse(self, refusal: Refused) -> None:
        """Write what Flower's page shows to the person who has pressed the button."""
        self.set_status(refusal.status)
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        self.finish(refusal.problem.detail)

    def _cancel(self, task_id: str, caller: Caller, force: bool) -> str:
        if views.by_id(self._system.database, task_id) is None:
            self._system.celery.control.revoke(task_id, terminate=force)
            return f"No run has the id {task_id} yet: if it comes, it is cancelled."
        decided = requests.decide(self._system, names.CANCEL, task_id, caller.actor, force=force)
        ended = "is cancelled" if decided.status.is_over else "is being cancelled: its agent ends Terraform"
        return f"Run {task_id} {ended}."


def _takes_commands(handler: ControlHandler, name: str | None) -> bool:
    """Whether a worker is known, and obeys Celery's remote control."""
    known = handler.application.workers.get(name) if name else None
    if known and is_agent(known):
        raise HTTPError(HTTPStatus.FORBIDDEN, f"{name} is an agent, which obeys its pool: see terraslot agent --help.")
    return bool(known)
