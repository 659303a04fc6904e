"""The plan phase and the apply phase: a few commands in a row, in a directory that both share."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import source, state_backend
from agent.execution import Execution, PhaseFailed, Stopped
from agent.files import read_regular
from agent.masking import Sensitive, decrypted
from agent.terraform import Terraform, TooLarge, bounded, fitting
from agent.terraform_environment import run_environment
from workers.protocol.errors import InvalidRequest
from workers.protocol.kinds import FailureReason, Phase, RunKind
from workers.protocol.messages import MAX_ERROR, Changes

_PLAN = "plan.tfplan"
_VARIABLES = "variables.tfvars.json"
_MODULE = "module"  # names the directory that was planned: a workspace may be changed before its confirmation


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """A phase that succeeded."""

    changed: bool = False
    changes: Changes = field(default_factory=Changes)
    outputs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Phases:
    """How this agent executes phases: its Terraform, its environment, its directory."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    work_dir: Path
    secret_dir: Path | None = None

    def execute(self, execution: Execution) -> PhaseResult:
        """Execute the order's phase. Raises :class:`PhaseFailed` and :class:`Stopped`; no process is left."""
        try:
            sensitive = decrypted(execution.order, self.secret_dir)
            execution.log.mask = sensitive.mask
            work = self._plan if execution.order.phase is Phase.PLAN else self._apply
            return work(execution, sensitive)
        except InvalidRequest as error:
            raise PhaseFailed(FailureReason.AGENT_ERROR, str(error)) from error
        except TooLarge as error:
            raise PhaseFailed(FailureReason.AGENT_ERROR, f"The plan can't be read: {error}.") from error
        except OSError as error:
            # The agent's own: a full disk, a missing program.
            raise PhaseFailed(FailureReason.AGENT_ERROR, f"The agent could not go on: {error}.") from error

    def _plan(self, execution: Execution, sensitive: Sensitive) -> PhaseResult:
        order = execution.order
        _fresh_directory(execution.directory)
        given = {**order.environment, **sensitive.environment}
        environment = run_environment(self.environment, given)
        module = source.fetch(execution, self.work_dir, environment, login=given)
        (execution.directory / _MODULE).write_text(str(module.relative_to(execution.directory)))
        terraform = Terraform(execution, self.command, module, environment)
        _initialise(execution, terraform, module)
        plan = execution.directory / _PLAN
        changed = terraform.plan(
            plan,
            variables=_write_variables(execution.directory, {**order.variables, **sensitive.variables}),
            destroy=order.destroy,
            lock=order.kind is RunKind.PLAN_AND_APPLY,
        )
        found = terraform.show(plan)
        return PhaseResult(changed, found.changes, _bounded_outputs(execution, found.outputs))

    def _apply(self, execution: Execution, sensitive: Sensitive) -> PhaseResult:
        named = execution.directory / _MODULE
        plan = execution.directory / _PLAN
        module = execution.directory / read_regular(named).decode() if named.exists() else None
        if module is None or not plan.exists() or not module.is_dir():
            raise PhaseFailed(
                FailureReason.AGENT_ERROR, f"Agent {execution.agent} no longer has the plan. Plan the workspace again."
            )
        environment = run_environment(self.environment, {**execution.order.environment, **sensitive.environment})
        terraform = Terraform(execution, self.command, module, environment)
        try:
            terraform.apply(plan)
        except (PhaseFailed, Stopped) as failure:
            if advice := state_backend.rescue_state(execution, module, self.work_dir / "rescued"):
                execution.log.write(advice)
                room = MAX_ERROR - len(advice) - 2
                failure.text = f"{bounded(failure.text or '', room)}\n\n{advice}".strip()
            raise
        return PhaseResult(changed=True, outputs=self._outputs(execution, terraform))

    def _outputs(self, execution: Execution, terraform: Terraform) -> dict[str, Any]:
        try:
            return _bounded_outputs(execution, terraform.output())
        except (PhaseFailed, Stopped, TooLarge, OSError, ValueError) as error:
            # The apply has succeeded, and its report must say so.
            execution.log.write(f"The outputs can't be read: {error}")
            return {}


def _initialise(execution: Execution, terraform: Terraform, module: Path) -> None:
    tree = source.source_tree(execution)
    if not state_backend.may_be_configured(module, tree):
        terraform.init(*state_backend.use_local(module, execution.order.state_path))
        return
    terraform.init()
    if not state_backend.is_remote(module, tree):
        terraform.init("-reconfigure", *state_backend.use_local(module, execution.order.state_path))


def _fresh_directory(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700, parents=True)


def _write_variables(directory: Path, variables: Mapping[str, Any]) -> Path | None:
    if not variables:
        return None
    path = directory / _VARIABLES
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(variables, file)
    return path


def _bounded_outputs(execution: Execution, values: Mapping[str, Any]) -> dict[str, Any]:
    kept, left_out = fitting(execution.log.mask.tree(dict(values)))
    for name in left_out:
        execution.log.write(f"The output '{name}' is too large for the run's record, and left out of it.")
    return kept
