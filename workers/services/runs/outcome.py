"""What a run is to its caller: the result of its task, or the error that the task raises."""

from typing import Any

from workers.core.lifecycle import ENDINGS, RunStatus
from workers.store.models import Run


def result_of(run: Run) -> dict[str, Any]:
    """Return a run as the dict that callers get."""
    return {
        "run_id": run.id,
        "workspace": run.workspace,
        "status": run.status.value,
        "changes": run.changes,
        "outputs": run.outputs or {},
        "agent": run.agent,
        "slot": run.slot,
        "attempt": run.attempt,
    }


def outcome(run: Run) -> dict[str, Any]:
    """Return the result of a run that succeeded; raise the :class:`RunError` of one that ended otherwise."""
    if run.status is RunStatus.SUCCEEDED:
        return result_of(run)
    error, ending = ENDINGS[run.status]
    sentence = f"Run {run.id} of workspace {run.workspace} {ending}"
    if run.reason:
        sentence += f" ({run.reason})"
    raise error(f"{sentence}: {run.error}" if run.error else f"{sentence}.")
