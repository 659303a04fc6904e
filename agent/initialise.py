"""The way to a plan in an initialised directory: by what an earlier ``init`` has made, or by one of the run's own."""

from pathlib import Path

from agent import state_backend, state_lock
from agent.execution import PhaseFailed
from agent.module import Module
from agent.prepared import Preparation
from agent.terraform import Terraform


def plan(
    terraform: Terraform, module: Module, preparation: Preparation | None, file: Path, variables: Path | None
) -> bool:
    """Plan in an initialised directory, and return whether there is anything to apply."""
    execution = terraform.execution
    if preparation is None or not _given(terraform, preparation):
        initialise(terraform, module, preparation)
        return _planned(terraform, file, variables)
    execution.remarks.append(
        "Nothing to initialise: an earlier init of this workspace with the same configuration is used again."
    )
    try:
        return _planned(terraform, file, variables)
    except PhaseFailed as failed:
        if not terraform.wants_init(failed):
            raise
    execution.log.write("That did not suit: initialising.")
    preparation.undo()
    initialise(terraform, module, preparation)
    return _planned(terraform, file, variables)


def _planned(terraform: Terraform, file: Path, variables: Path | None) -> bool:
    return state_lock.waited_for(
        terraform, lambda seconds: terraform.plan(file, variables=variables, lock_seconds=seconds)
    )


def _given(terraform: Terraform, preparation: Preparation) -> bool:
    is_local = preparation.give()
    if is_local:
        _use_local(terraform)
    return is_local is not None


def initialise(terraform: Terraform, module: Module, preparation: Preparation | None) -> None:
    """Initialise a module, and keep what that makes; state that has no place of its own goes to the order's."""
    environment = preparation.for_init() if preparation else {}
    is_local = not state_backend.may_be_configured(module)
    terraform.init(*(_use_local(terraform) if is_local else ()), environment=environment)
    if not is_local and not state_backend.is_remote(module):
        is_local = True
        terraform.init("-reconfigure", *_use_local(terraform), environment=environment)
    if preparation:
        preparation.keep(is_local=is_local)


def _use_local(terraform: Terraform) -> tuple[str, str]:
    order = terraform.execution.order
    return state_backend.use_local(terraform.module, order.state_path, order.workspace)
