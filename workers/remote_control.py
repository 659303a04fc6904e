"""What Celery's remote control does to a control worker: ``AsyncResult.revoke()`` and Flower's buttons are among it.

A run outlives its messages, so what Celery would do to a message is done to the run, or refused. To revoke a run is to
cancel it. No message is discarded as revoked: the outcome of a run comes under the same id, and says what happened to
it. Rate and time limits are refused: they would hold outcomes back, and no run would obey them.

Every control worker hears every command. Agents publish none: see docs/threat-model.md.
"""

from datetime import UTC, datetime
from typing import Any

from celery.utils.collections import LimitedSet
from celery.worker.control import control_command
from celery.worker.request import Request

from workers.protocol import names

# Ids that were revoked, for runs whose message no worker has taken yet. Bounded as Celery bounds its own.
_REMEMBERED, _REMEMBERED_SECONDS = 50_000, 10_800
_revoked = LimitedSet(maxlen=_REMEMBERED, expires=_REMEMBERED_SECONDS)

Answer = dict[str, str]


class ControlRequest(Request):
    """A message to a control worker; only one that expired before any worker had it is discarded."""

    def revoked(self) -> bool:
        """Discard an expired message, and say so in its result. What it asks for was not done."""
        if self._already_revoked:
            return True
        if self.expires is None or self.delivery_info["redelivered"] or datetime.now(UTC) <= self.expires:
            return False
        self._announce_revoked("expired", terminated=False, signum=None, expired=True)
        return True


def is_revoked(task_id: str) -> bool:
    """Whether this id was revoked lately."""
    return task_id in _revoked


def decision_id(run_id: str, *, force: bool) -> str:
    """Return the id of the decision that all control workers make of one revocation."""
    return f"{'terminate' if force else 'revoke'}-{run_id}"


@control_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def revoke(state: Any, task_id: object, terminate: bool = False, **_: Any) -> Answer:
    """Cancel runs; with ``terminate``, kill terraform instead of interrupting it."""
    return _cancel(state, task_id, force=bool(terminate))


@control_command(name="terminate", variadic="task_id", args=[("signal", str)], signature="<signal> [id1 [... [idN]]]")
def terminate_runs(state: Any, task_id: object, **_: Any) -> Answer:
    """Cancel runs, and kill terraform."""
    return _cancel(state, task_id, force=True)


def _cancel(state: Any, task_id: object, *, force: bool) -> Answer:
    asked = task_id if isinstance(task_id, list | tuple | set) else [task_id]
    runs = [run for run in asked if isinstance(run, str) and names.RUN_ID.fullmatch(run)]
    for run in runs:
        # First: whoever enters the run from now on cancels it, and whoever has entered it is found by the task.
        _revoked.add(run)
        state.app.send_task(names.REVOKE, args=[run, force], task_id=decision_id(run, force=force), ignore_result=True)
    return {"ok": f"runs to be cancelled: {', '.join(runs) or 'none'}"}


@control_command(variadic="headers", signature="[key1=value1 [... [keyN=valueN]]]")
def revoke_by_stamped_headers(_: Any, **__: Any) -> Answer:
    """Do nothing: runs are cancelled by their ids."""
    # Celery's client breaks on an error here.
    return {"ok": "nothing is revoked by its headers: revoke runs by their ids"}


@control_command(args=[("task_name", str), ("rate_limit", str)], signature="<task_name> <rate_limit>")
def rate_limit(_: Any, **__: Any) -> Answer:
    """Refuse: it would hold back outcomes that are ready."""
    return {"error": "Terraslot's tasks have no rate limit: pools limit how many runs are executed at a time"}


@control_command(args=[("task_name", str), ("soft", float), ("hard", float)], signature="<task_name> <soft> [hard]")
def time_limit(_: Any, **__: Any) -> Answer:
    """Refuse: no run would obey it."""
    return {"error": "Terraslot's tasks have no time limit: set the timeouts of the pool"}
