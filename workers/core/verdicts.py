"""What people may decide about a run, and in which status: asked before a decision is made, and to show who may. Pure.

What a decision meets when it is made, another one at the same moment or an agent that is gone, is told then.
"""

from enum import StrEnum

from workers.core.approval import Actor, Approval
from workers.core.errors import ApprovalRefused, IllegalTransition, NotWaiting
from workers.core.lifecycle import RunStatus
from workers.protocol.errors import TerraslotError


class Verdict(StrEnum):
    """A decision about a run."""

    CONFIRM = "confirm"
    DISCARD = "discard"
    CANCEL = "cancel"
    EXTEND = "extend"


_DONE = {Verdict.CONFIRM: "confirmed", Verdict.DISCARD: "discarded", Verdict.EXTEND: "extended"}


def untimely(verdict: Verdict, run_id: str, status: RunStatus) -> TerraslotError | None:
    """Return why a run in this status can't be decided about so; None where it can."""
    if verdict is Verdict.CANCEL:
        over = f"Run {run_id} is over already: it {status}."
        return IllegalTransition(over) if status.is_over else None
    if status is RunStatus.APPLY_PENDING:
        return None
    return NotWaiting(f"Run {run_id} can't be {_DONE[verdict]}: it is {status}, not waiting for a confirmation.")


def unapproved(
    rules: Approval, run_id: str, asked_by: str | None, given: list[str], actor: Actor | None
) -> ApprovalRefused | None:
    """Return why the workspace of a run does not let ``actor`` confirm its plan; None where it does.

    ``asked_by``: who asked for the run; ``given``: who has approved it.
    """
    why = rules.refuse(asked_by, given, actor) if rules.is_required else None
    return None if why is None else ApprovalRefused(f"Run {run_id} can't be confirmed: {why}.")
