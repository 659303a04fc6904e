"""The outcome of a run, printed: a few lines for people, one document for programs, an exit code."""

import json
from typing import Any

from workers.cli.console import FAILURE, LEFT_WAITING, SUCCESS, clean, complain, say, show_json
from workers.core.lifecycle import RunStatus
from workers.protocol.kinds import RunKind
from workers.services.formatting import counted
from workers.services.runs.views import RunView

STYLES = {
    RunStatus.SUCCEEDED: "green",
    RunStatus.FAILED: "red",
    RunStatus.CANCELLED: "red",
    RunStatus.APPLY_PENDING: "yellow",
    RunStatus.PLANNING: "cyan",
    RunStatus.APPLYING: "cyan",
}


def exit_code(run: RunView) -> int:
    """Return the exit code of a command that waited for a run."""
    if run.status is RunStatus.SUCCEEDED:
        return SUCCESS
    return LEFT_WAITING if run.status is RunStatus.APPLY_PENDING else FAILURE


def tell(run: RunView, *, as_json: bool) -> None:
    """Print how the run stands."""
    if as_json:
        show_json(run)
    elif run.status is RunStatus.SUCCEEDED:
        say(_success(run), style="green")
        if run.kind is RunKind.PLAN:
            _warn(run)
        tell_outputs(run)
    elif run.status is RunStatus.APPLY_PENDING:
        say(f"Run {run.run_id} waits for a confirmation: {changes(run)}.", style="yellow")
        _warn(run)
        say(f"Apply it with `terraslot confirm {run.run_id}`, or refuse it with `terraslot discard {run.run_id}`.")
    elif run.status.is_over:
        complain(_ending(run))
    else:
        say(f"Run {run.run_id} is {run.status}: `terraslot logs -f {run.run_id}` follows it.")


def tell_outputs(run: RunView) -> None:
    """Print the outputs of a run, one a line; a long or nested one as JSON."""
    if run.outputs:
        say("Outputs:", style="bold")
    for name, value in sorted(run.outputs.items()):
        say(f"  {name} = {_value(value)}")


def changes(run: RunView) -> str:
    """Return the counts of a plan in words."""
    counts = run.changes
    if counts["add"] is None:
        if run.status is RunStatus.APPLYING:
            return "being read while it is applied"
        return "not planned" if run.status.is_over else "not planned yet"
    if not any(counts.values()):
        return "no resource changes"
    return f"{counts['add']} to add, {counts['change']} to change, {counts['destroy']} to destroy"


def destruction(run: RunView) -> str | None:
    """Return the warning about a plan that destroys."""
    return f"Its plan destroys {counted(run.changes['destroy'] or 0, 'resource')}." if run.plan_destroys else None


def options(run: RunView) -> list[str]:
    """Return what was asked of a run beside its workspace, as Terraform writes it."""
    asked = run.options
    state = asked.get("state", {})
    return [
        *([f"state push, of run {state['push']}"] if "push" in state else []),
        *([f"force-unlock {state['unlock']}"] if "unlock" in state else []),
        *(["-destroy"] if run.destroy else []),
        *(["-refresh-only"] if asked.get("refresh_only") else []),
        *(f"-target={address}" for address in asked.get("targets", ())),
        *(f"-replace={address}" for address in asked.get("replace", ())),
        *(f"-var {name}={_value(value)}" for name, value in sorted(asked.get("variables", {}).items())),
        *([f"-parallelism={asked['parallelism']}"] if "parallelism" in asked else []),
    ]


def _warn(run: RunView) -> None:
    if warning := destruction(run):
        say(warning, style="bold red")


def _success(run: RunView) -> str:
    if "state" in run.options:
        return f"Run {run.run_id} succeeded: {', '.join(options(run))}."
    if run.changes["add"] is None:
        return f"Run {run.run_id} succeeded, by {run.agent}: `terraslot logs {run.run_id}` prints what it changed."
    if not any(run.changes.values()):
        return f"Run {run.run_id} succeeded: no changes."
    if run.kind is RunKind.PLAN:
        return f"Run {run.run_id} succeeded: {changes(run)}."
    done = f"{run.changes['add']} added, {run.changes['change']} changed, {run.changes['destroy']} destroyed"
    return f"Run {run.run_id} succeeded: {done}, by {run.agent}."


def _ending(run: RunView) -> str:
    reason = f" ({run.reason})" if run.reason else ""
    said = f":\n{run.error.strip()}" if run.error else "."
    verb = "failed" if run.status is RunStatus.FAILED else f"was {run.status}"
    if run.status is RunStatus.EXPIRED:
        verb = "expired: nobody confirmed its plan in time"
    return f"Run {run.run_id} {verb}{reason}{said}"


def _value(value: Any) -> str:
    return clean(value) if isinstance(value, str) else json.dumps(value)
