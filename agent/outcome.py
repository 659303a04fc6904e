"""How a phase ended, in the words of its report; and whether another phase may follow in its directory."""

from __future__ import annotations

from typing import Any

from agent.execution import Execution, PhaseFailed, StopCause, Stopped
from agent.output import clean
from agent.phases import Phases
from agent.terraform import bounded
from workers.protocol.kinds import FailureReason, Phase, RunKind
from workers.protocol.messages import MAX_ERROR, Order, PhaseFinished


def finish(execution: Execution, phases: Phases, pool: str) -> PhaseFinished | None:
    """Execute a phase to its end, whatever that is, and return what is to be reported of it.

    None if that is not for this agent to say: the lease is somebody else's, or a plan was cut short by the agent's
    own end and is made anew elsewhere.
    """
    try:
        outcome = phases.execute(execution)
    except Stopped as stopped:
        facts = _stopped(execution, stopped)
    except PhaseFailed as failed:
        facts = _failure(failed.reason, failed.text)
        if failed.reason is not FailureReason.TERRAFORM_FAILED:  # which Terraform has said in the log itself
            execution.log.write_text(facts["error"])
    except Exception:
        execution.logger.exception("the phase failed for a fault of the agent")
        facts = _failure(FailureReason.AGENT_ERROR, "The agent failed to execute the phase: see its own log.")
    else:
        facts = {
            "outcome": "succeeded",
            "changed": outcome.changed,
            "changes": outcome.changes,
            "outputs": outcome.outputs,
        }
    return None if facts is None else _report(execution, pool, facts)


def keeps_directory(order: Order, finished: PhaseFinished | None) -> bool:
    """Whether an apply may follow in the same directory."""
    return (
        finished is not None
        and order.phase is Phase.PLAN
        and order.kind is RunKind.PLAN_AND_APPLY
        and finished.outcome == "succeeded"
        and finished.changed
    )


def _stopped(execution: Execution, stopped: Stopped) -> dict[str, Any] | None:
    order = execution.order
    if stopped.cause is StopCause.CANCELLED:
        return {"outcome": "cancelled", "error": stopped.text}
    if stopped.cause is StopCause.TIMED_OUT:
        sentence = f"The {order.phase} took longer than {order.timeout:g} s and was ended."
        return _failure(FailureReason.TIMED_OUT, sentence, stopped.text)
    if stopped.cause is StopCause.SHUTDOWN and order.phase is Phase.APPLY:
        sentence = "The agent had to stop before the apply was done, and interrupted it."
        return _failure(FailureReason.AGENT_LOST, sentence, stopped.text)
    return None


def _failure(reason: FailureReason, sentence: str, terraform: str | None = None) -> dict[str, Any]:
    text = f"{sentence}\n\n{terraform}" if terraform else sentence
    # Names of files and words of git are as hostile as Terraform's output, which is clean already.
    error = "\n".join(map(clean, text.split("\n")))
    return {"outcome": "failed", "reason": reason, "error": bounded(error, MAX_ERROR)}


def _report(execution: Execution, pool: str, facts: dict[str, Any]) -> PhaseFinished:
    order = execution.order
    return PhaseFinished(
        pool=pool,
        agent=execution.agent,
        run=order.run,
        token=order.token,
        phase=order.phase,
        commit=execution.commit,
        **facts,
    )
