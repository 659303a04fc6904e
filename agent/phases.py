"""The plan phase and the apply phase: a few commands in a row, in a directory that both share; and their outcome."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import initialise, rescued_states, source, state_backend, state_lock
from agent.execution import Execution, PhaseFailed, StopCause, Stopped
from agent.files import create, fresh_directory, read_regular
from agent.git_cache import GitCache
from agent.masking import Hidden, Mask, decrypted
from agent.module import Module
from agent.output import clean
from agent.plan_details import masked_plan, told_beside
from agent.prepared import PreparedDirectories
from agent.programs import Programs
from agent.required_version import required_versions
from agent.summary import fitting
from agent.terraform import Terraform, bounded, too_large
from agent.terraform_environment import run_environment
from workers.protocol.errors import InvalidRequest
from workers.protocol.kinds import FailureReason, Phase, RunKind
from workers.protocol.messages import MAX_ERROR, MAX_OUTPUTS_BYTES, Order, PhaseFinished
from workers.protocol.sources import SensitiveVariables
from workers.protocol.states import RescuedState, StateStep

_PLAN = "plan.tfplan"
_VARIABLES = "variables.tfvars.json"
_NOT_TOLD = "not-told"  # says that the apply tells what the plan does
_PROGRAM = "program"  # names the Terraform that made the plan
_MODULE = "module"  # names the directory that was planned: a workspace may be changed before its confirmation


@dataclass(frozen=True, slots=True)
class Phases:
    """How this agent executes phases: its programs, its environment, its directory.

    ``fetch_state`` returns the encrypted state that a run is to push.
    """

    programs: Programs
    environment: Mapping[str, str] = field(repr=False)
    work_dir: Path
    prepared: PreparedDirectories
    secret_dir: Path | None
    fetch_state: Callable[[str], str | None]
    git_cache_bytes: int

    @property
    def cache(self) -> GitCache:
        """What is kept of git repositories from run to run."""
        return GitCache(self.work_dir / "git", self.git_cache_bytes)

    def finish(self, execution: Execution) -> PhaseFinished | None:
        """Execute the order's phase to its end and return the report of it.

        None if nothing is to be reported: the slot was given to another run, or the agent stopped during a plan, which
        is then made again by another agent.
        """
        try:
            return self.execute(execution)
        except Stopped as stopped:
            return _stopped(execution, stopped)
        except PhaseFailed as failed:
            finished = _failure(execution, failed.reason, failed.text)
            if failed.reason is not FailureReason.TERRAFORM_FAILED:  # Terraform writes its own errors to the log
                execution.log.write_text(finished.error or "")
            return finished
        except Exception:
            execution.logger.exception("phase failed by an error of the agent")
            sentence = "The agent failed to execute the phase. Its own log has the cause."
            return _failure(execution, FailureReason.AGENT_ERROR, sentence)

    def execute(self, execution: Execution) -> PhaseFinished:
        """Execute the phase to its success. Raises :class:`PhaseFailed` and :class:`Stopped`; no process is left."""
        try:
            sensitive = self._sensitive(execution)
            work = self._plan if execution.order.phase is Phase.PLAN else self._apply
            return work(execution, sensitive)
        except InvalidRequest as error:
            raise PhaseFailed(FailureReason.AGENT_ERROR, str(error)) from error
        except OSError as error:
            # The agent's own: a full disk, a missing program.
            raise PhaseFailed(FailureReason.AGENT_ERROR, f"The agent could not go on: {error}.") from error

    def _sensitive(self, execution: Execution) -> SensitiveVariables:
        """Return the order's sensitive variables, which the log masks from here on.

        An apply that goes on without this process ends as it does also where their key was retired meanwhile; then
        nothing that it prints is shown.
        """
        try:
            sensitive = decrypted(execution.order, self.secret_dir)
        except (InvalidRequest, OSError) as error:
            if execution.left is None:
                raise
            execution.log.write(f"What Terraform has printed from here on is not shown: {error}")
            execution.log.mask = Hidden()
            return SensitiveVariables()
        execution.log.mask = Mask(sensitive.model_dump())
        return sensitive

    def _plan(self, execution: Execution, sensitive: SensitiveVariables) -> PhaseFinished:
        order = execution.order
        fresh_directory(execution.directory)
        given = {**order.environment, **sensitive.environment}
        environment = run_environment(self.environment, given)
        module = source.fetch(execution, self.work_dir, environment, given, self.cache)
        program = self._chosen(execution, module)
        terraform = Terraform(execution, program, module.path, environment)
        preparation = self.prepared.of(execution, module, program, environment)
        if order.options.state is not None:
            initialise.initialise(terraform, module, preparation)
            self._change_state(order.options.state, execution, terraform)
            return execution.report(PhaseFinished, outcome="succeeded")
        plan = execution.directory / _PLAN
        variables = {**order.variables, **order.options.variables, **sensitive.variables}
        file = _write_variables(execution.directory, variables)
        changed = initialise.plan(terraform, module, preparation, plan, file)
        if changed and order.kind is RunKind.PLAN_AND_APPLY:
            _note_for_apply(execution, module)
        if changed and order.auto_apply:
            create(execution.directory / _NOT_TOLD, "")
            return execution.report(PhaseFinished, outcome="succeeded", changed=True, detail_follows=True)
        changes, known, detail = terraform.show(plan)
        return execution.report(
            PhaseFinished,
            outcome="succeeded",
            changed=changed,
            changes=changes,
            outputs=_bounded_outputs(execution, known),
            plan=masked_plan(execution.log.mask, detail),
        )

    def _apply(self, execution: Execution, sensitive: SensitiveVariables) -> PhaseFinished:
        plan, module = execution.directory / _PLAN, _planned_module(execution.directory)
        if execution.left is None and (module is None or not plan.exists()):
            raise PhaseFailed(
                FailureReason.AGENT_ERROR, f"Agent {execution.agent} no longer has the plan. Plan the workspace again."
            )
        module = module or execution.directory  # of one that has begun: its end is waited for, whatever is left of it
        environment = run_environment(self.environment, {**execution.order.environment, **sensitive.environment})
        terraform = Terraform(execution, self._of_plan(execution), module, environment)
        try:
            untold = (execution.directory / _NOT_TOLD).exists()
            with told_beside(terraform, plan) if untold else nullcontext(), state_lock.told(terraform):
                told = terraform.apply(plan)
        except (PhaseFailed, Stopped) as failure:
            self._rescue_state(execution, module, failure)
            raise
        finally:
            execution.findings["progress"] = execution.progress.final()
        outputs = self._outputs(execution, terraform, told)
        return execution.report(PhaseFinished, outcome="succeeded", changed=True, outputs=outputs)

    def _chosen(self, execution: Execution, module: Module) -> Sequence[str]:
        """Return the command of the program that a plan is made with."""
        required = execution.order.terraform
        chosen = self.programs.choose(required, required_versions(module))
        if chosen.program is not None:
            execution.program = str(chosen.program)
            if chosen is not self.programs.installed[0]:
                execution.remarks.append(f"Using {execution.program}, as {required or 'the configuration'} requires.")
        return chosen.command

    def _of_plan(self, execution: Execution) -> Sequence[str]:
        """Return the command of the program that made the run's plan: no other may apply it."""
        try:
            said = read_regular(execution.directory / _PROGRAM).decode(errors="replace")
        except OSError:
            return self.programs.installed[0].command
        made_by = self.programs.of(said)
        if made_by is None and execution.left is None:
            raise PhaseFailed(
                FailureReason.AGENT_ERROR,
                f"Agent {execution.agent} no longer has the program that made the plan. Plan the workspace again.",
            )
        if made_by is None:  # of an apply that has begun: only its outputs are still to be read
            return self.programs.installed[0].command
        execution.program = str(made_by.program)
        return made_by.command

    def _rescue_state(self, execution: Execution, module: Path, failure: PhaseFailed | Stopped) -> None:
        if (kept := state_backend.rescue_state(execution, module, self.work_dir / "rescued")) is None:
            return
        execution.rescued = rescued_states.encrypted(kept, self.secret_dir, execution.logger)
        sent = execution.rescued is not None
        execution.findings["rescued"] = RescuedState(bytes=kept.stat().st_size, sent=sent)
        advice = rescued_states.advice(execution, None if sent else kept)
        execution.advice = tuple(map(execution.log.shown, (advice, rescued_states.advice(execution, kept))))
        execution.log.write(advice)
        room = MAX_ERROR - len(advice) - 2
        failure.text = f"{bounded(failure.text or '', room)}\n\n{advice}".strip()

    def _change_state(self, step: StateStep, execution: Execution, terraform: Terraform) -> None:
        if step.unlock is not None:
            state_lock.end(terraform, step.unlock)
        else:
            content = self.fetch_state(execution.order.run)
            state = rescued_states.decrypted(content, self.secret_dir, execution.directory)
            state_lock.waited_for(terraform, lambda seconds: terraform.push_state(state, lock_seconds=seconds))

    def _outputs(self, execution: Execution, terraform: Terraform, told: dict[str, Any] | None) -> dict[str, Any]:
        try:
            return _bounded_outputs(execution, terraform.output() if told is None else told)
        except (PhaseFailed, Stopped, OSError, ValueError) as error:
            # The apply has succeeded, and its report must say so.
            execution.log.write(f"The outputs can't be read: {error}")
            return {}


def _note_for_apply(execution: Execution, module: Module) -> None:
    create(execution.directory / _MODULE, str(module.path.relative_to(execution.directory)))
    if execution.program is not None:
        create(execution.directory / _PROGRAM, execution.program)


def _planned_module(directory: Path) -> Path | None:
    with suppress(OSError, ValueError):
        module = directory / read_regular(directory / _MODULE).decode()
        return module if module.is_dir() else None
    return None


def _write_variables(directory: Path, variables: Mapping[str, Any]) -> Path | None:
    if not variables:
        return None
    path = directory / _VARIABLES
    create(path, json.dumps(variables))
    return path


def _bounded_outputs(execution: Execution, values: Mapping[str, Any]) -> dict[str, Any]:
    kept, left_out = fitting(execution.log.mask.tree(dict(values)), MAX_OUTPUTS_BYTES)
    for name in left_out:
        execution.log.write(too_large(name))
    return kept


def keeps_directory(order: Order, finished: PhaseFinished | None) -> bool:
    """Whether an apply may follow in the same directory."""
    planned = order.phase is Phase.PLAN and order.kind is RunKind.PLAN_AND_APPLY
    return planned and finished is not None and finished.outcome == "succeeded" and finished.changed


def _stopped(execution: Execution, stopped: Stopped) -> PhaseFinished | None:
    order = execution.order
    if stopped.cause is StopCause.CANCELLED:
        return execution.report(PhaseFinished, outcome="cancelled", error=stopped.text)
    if stopped.cause is StopCause.TIMED_OUT:
        sentence = f"The {order.phase} took longer than {order.timeout:g} s and was ended."
        return _failure(execution, FailureReason.TIMED_OUT, sentence, stopped.text)
    if stopped.cause is StopCause.SHUTDOWN and order.phase is Phase.APPLY:
        sentence = "The agent had to stop before the apply was done, and interrupted Terraform."
        return _failure(execution, FailureReason.AGENT_LOST, sentence, stopped.text)
    return None


def _failure(execution: Execution, reason: FailureReason, sentence: str, terraform: str | None = None) -> PhaseFinished:
    text = f"{sentence}\n\n{terraform}" if terraform else sentence
    # Names of files and words of git are as hostile as Terraform's output, which is clean already.
    error = bounded(execution.log.shown("\n".join(map(clean, text.split("\n")))), MAX_ERROR)
    return execution.report(PhaseFinished, outcome="failed", reason=reason, error=error)
