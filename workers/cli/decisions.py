"""Decide about a run by the tasks that every caller uses: neither the database nor a key is needed for it."""

from dataclasses import dataclass, fields
from typing import Any

from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as NoAnswer

from workers.cli.actor import actor
from workers.cli.system import system
from workers.core.lifecycle import RunStatus
from workers.protocol import names
from workers.protocol.errors import Unavailable
from workers.slots.redis_server import clock

# Seconds. A request that no worker has taken by then is void, so that nothing happens after the command has ended.
_TAKEN_WITHIN, _ANSWERED_WITHIN = 20.0, 30.0


@dataclass(frozen=True)
class Decided:
    """A run as the control plane answered a decision about it: the result of its task."""

    run_id: str
    workspace: str
    status: RunStatus
    changes: dict[str, int | None]
    outputs: dict[str, Any]
    agent: str | None
    slot: int | None
    attempt: int


def decide(task: str, run: str, **options: Any) -> Decided:
    """Send a decision about a run, in the name of who uses this command, and return the run as it is then.

    Raises what the task raises, and :class:`Unavailable` where no worker answers.
    """
    clock(system().redis)  # Celery would try for twenty seconds to reach a result backend that isn't there
    headers = {names.ACTOR_HEADER: actor().name}
    given = {name: value for name, value in options.items() if value is not None}  # 0.1 knows no message
    request = system().celery.send_task(task, args=[run], kwargs=given, headers=headers, expires=_TAKEN_WITHIN)
    try:
        answer = request.get(timeout=_ANSWERED_WITHIN)
    except (NoAnswer, TaskRevokedError):
        raise Unavailable(
            f"No worker has answered within {_ANSWERED_WITHIN:g} s: see `terraslot doctor`. "
            f"How the run stands is told by `terraslot show {run}`."
        ) from None
    return decided(answer)


def decided(answer: dict[str, Any]) -> Decided:
    """Return the result of a decision's task as a value."""
    known = {field.name: answer[field.name] for field in fields(Decided)}
    return Decided(**known | {"status": RunStatus(answer["status"])})
