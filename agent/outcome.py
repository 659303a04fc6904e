"""The outcome of a phase, as its report tells it; and whether another phase may follow in its directory."""

from typing import Any

from agent.execution import Execution, PhaseFailed, StopCause, Stopped
from agent.output import clean
from agent.phases import Phases
from agent.terraform import bounded
from workers.protocol.kinds import FailureReason, Phase, RunKind
from workers.protocol.messages import MAX_ERROR, Order, PhaseFinished


def finish(execution: Execution, phases: Phases, pool: str) -> PhaseFinished | None:
    """Execute a phase to its end and return the report of it.

    None if nothing is to be reported: the slot was given to another run, or the agent stopped during a plan, which is
    then made again by another agent.
    """
    try:
        result = phases.execute(execution)
    except Stopped as stopped:
        facts = _stopped(execution, stopped)
    except PhaseFailed as failed:
        facts = _failure(failed.reason, failed.text)
        if failed.reason is not FailureReason.TERRAFORM_FAILED:  # Terraform writes its own errors to the log
            execution.log.write_text(facts["error"])
    except Exception:
        execution.logger.exception("phase failed by an error of the agent")
        facts = _failure(FailureReason.AGENT_ERROR, "The agent failed to execute the phase. Its own log has the cause.")
    else:
        facts = {
            "outcome": "succeeded",
            "changed": result.changed,
            "changes": result.changes,
            "outputs": result.outputs,
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
        sentence = "The agent had to stop before the apply was done, and interrupted Terraform."
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
