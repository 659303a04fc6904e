"""Orders to agents: what one phase of a run needs, sent to the queue of the agent that holds its slot."""

from __future__ import annotations

import secrets
from typing import Any

import structlog

from workers.app import direct_queue
from workers.core import names
from workers.core.messages import CancelRequest, Order
from workers.core.pools import PoolSpec
from workers.core.runs import Phase
from workers.core.slots import CancelMode, Lease
from workers.core.workspaces import WorkspaceSpec
from workers.services import sensitive
from workers.services.faults import explained, is_transient
from workers.services.losses import fail
from workers.services.system import System
from workers.store.models import Run

log = structlog.get_logger(__name__)


def new_token() -> str:
    """Return a fencing token that nobody can guess."""
    return secrets.token_urlsafe(24)


def send(system: System, run: Run, lease: Lease, phase: Phase, *, pool: PoolSpec, workspace: WorkspaceSpec) -> bool:
    """Send the order for ``phase``. Sending it twice is harmless: its token is redeemed once.

    A run whose order can't be made, for what its workspace or pool says, fails: False. Raises where a server is away;
    an order that was not sent is sent again by reconcile.
    """
    try:
        order = _order(system, run, lease, phase, pool=pool, workspace=workspace)
        _send(system, names.EXECUTE_ORDER, run, {"order": order.model_dump(mode="json")})
    except Exception as error:
        if is_transient(error):
            raise
        log.exception("order can't be made", run=run.id, pool=run.pool, phase=phase.value)
        fail(system, run, f"The order for its {phase} can't be made: {explained(error)}")
        return False
    return True


def _order(system: System, run: Run, lease: Lease, phase: Phase, *, pool: PoolSpec, workspace: WorkspaceSpec) -> Order:
    return Order(
        run=run.id,
        workspace=run.workspace,
        kind=run.kind,
        phase=phase,
        slot=lease.slot,
        token=lease.token,
        source=workspace.source,
        commit=run.commit,
        variables=workspace.variables,
        environment=workspace.environment,
        destroy=run.destroy,
        sealed=sensitive.for_order(system, pool, workspace),
        timeout=pool.timeouts.plan if phase is Phase.PLAN else pool.timeouts.apply,
        interrupt_grace=pool.timeouts.interrupt,
        state_path=_state_path(system, run, pool),
    )


def send_cancel(system: System, run: Run, mode: CancelMode) -> None:
    """Tell the agent of an executing run at once what its next heartbeat would tell it too."""
    request = CancelRequest(run=run.id, token=run.token or "", mode=mode)
    _send(system, names.CANCEL_ORDER, run, {"request": request.model_dump(mode="json")})


def _send(system: System, task: str, run: Run, kwargs: dict[str, Any]) -> None:
    system.celery.send_task(
        task,
        kwargs=kwargs,
        queue=direct_queue(names.orders_queue(run.pool, run.agent or "")),
        ignore_result=True,
        # What Flower and logs show: variables never leave the message itself.
        argsrepr="()",
        kwargsrepr=f"{{'run': '{run.id}'}}",
    )


def _state_path(system: System, run: Run, pool: PoolSpec) -> str | None:
    """Return where a local pool keeps the state of a workspace without a remote backend."""
    if pool.type != "local":
        return None
    return str(system.settings.home / "state" / run.workspace / "terraform.tfstate")
