"""What a plan would do with each resource, masked and bounded; for an apply that needs nobody read beside it."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.execution import Execution, PhaseFailed, StopCause, Stopped
from agent.masking import Mask
from agent.summary import fitting_resources
from agent.terraform import Terraform
from workers.protocol.plan_detail import FROM_CONFIGURATION, MAX_PLAN_BYTES, PlanDetail

# Seconds: after which the detail of an apply that goes on is reported by itself; and for which one that is over, or was
# stopped, waits for it.
_REPORT_AFTER = 1.0
_PATIENCE, _PATIENCE_STOPPED = 60.0, 1.0
_TICK = 0.1


def masked_plan(mask: Mask, detail: dict[str, Any]) -> PlanDetail:
    """Return the detail of a plan with every value masked. That makes some texts longer, so it is bounded again."""

    def masked(facts: Mapping[str, Any]) -> dict[str, Any]:
        return {name: mask.tree(value) if name in FROM_CONFIGURATION else value for name, value in facts.items()}

    changes = [(facts.pop("attributes", ()), facts) for facts in detail["resources"]]
    found = ((masked(facts), map(masked, attributes)) for attributes, facts in changes)
    return PlanDetail.model_validate(fitting_resources(found, MAX_PLAN_BYTES, detail.get("left_out")))


@contextmanager
def told_beside(terraform: Terraform, plan: Path) -> Iterator[None]:
    """Read what a plan would do while it is applied: the report of the phase's end tells it, an earlier one if need be.

    An apply is none the worse for a detail that can't be read: the log says so. Nor does its report wait for it where
    the agent is to stop: one that is killed before it reports has lost an apply that is done.
    """
    execution = terraform.execution
    beside = execution.beside()
    over, facts = threading.Event(), dict[str, Any]()

    def read() -> None:
        try:
            changes, _, detail = replace(terraform, execution=beside).show(plan)
            facts.update(changes=changes, plan=masked_plan(execution.log.mask, detail))
        except (PhaseFailed, Stopped, OSError, ValueError) as error:
            execution.log.write(f"What the plan does with each resource can't be read: {error}")
        else:
            if not over.wait(_REPORT_AFTER):
                execution.report_started(**facts)

    reader = threading.Thread(target=read, name="show", daemon=True)
    reader.start()
    try:
        yield
    finally:
        over.set()
        began = time.monotonic()
        while reader.is_alive() and time.monotonic() - began < _patience(execution):
            reader.join(_TICK)
        if reader.is_alive():
            beside.stop(StopCause.TIMED_OUT, kill_in=0)
            reader.join()
        execution.findings |= facts


def _patience(execution: Execution) -> float:
    return _PATIENCE if execution.cause is None else _PATIENCE_STOPPED
