"""Orders to agents: what one phase of a run needs, sent to the queue of the agent that holds its slot.

An order is made before anything is decided, so that an error in making it changes nothing. It is sent after the commit,
so that reconcile sends an order again that was lost.
"""

import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import structlog
from pydantic import ValidationError

from workers.app import message
from workers.protocol import names
from workers.protocol.encryption import NoKey
from workers.protocol.errors import Damaged, TerraslotError
from workers.protocol.kinds import Phase, RunKind
from workers.protocol.leases import CancelMode
from workers.protocol.messages import CancelRequest, Order
from workers.protocol.run_options import OrderOptions
from workers.protocol.sources import SSH_KEY, ArchiveSource, GitSource
from workers.protocol.version import LOCKS_SINCE, OLDEST_AGENT, OPTIONS_SINCE, SOURCES_SINCE
from workers.services import local_states
from workers.services.errors import explained, is_outage, isolate
from workers.services.runs import locks, rescued
from workers.services.secrets import variables
from workers.services.system import System
from workers.slots import order_queue
from workers.slots.connection import Step
from workers.specs.pools import PoolSpec
from workers.specs.workspaces import WorkspaceSpec
from workers.store import workspaces
from workers.store.configurations import WorkspaceToRun
from workers.store.database import Session
from workers.store.models import Run

log = structlog.get_logger(__name__)


class NotMade(TerraslotError):
    """An order can't be made, now or later, because of the run's own workspace; the message says why."""


def new_token() -> str:
    """Return a fencing token, which can't be guessed."""
    return secrets.token_urlsafe(24)


def make(
    system: System,
    session: Session,
    run: Run,
    phase: Phase,
    pool: PoolSpec,
    *,
    slot: int,
    token: str,
    workspace: WorkspaceToRun | None = None,
) -> Order:
    """Return the order for ``phase``, to be redeemed by ``token``. ``workspace``: where it was read already.

    Raises :class:`NotMade` for an error of the run's workspace alone, and the outage itself where the platform lacks
    a server or a key.
    """
    try:
        spec, directory = workspace or workspaces.to_run(session, run.workspace)
        encrypted = variables.for_order(system, session, pool, spec, run.encrypted)
        # Where a local pool keeps the state of a configuration without a remote backend.
        here = system.pods(pool).on_this_machine
        state = str(local_states.path(system.settings.home, directory)) if here else None
        dead = locks.dead_holders(system, session, run) if phase is Phase.PLAN else ()
        auto = phase is Phase.PLAN and _applies_itself(run, spec)
        facts: dict[str, Any] = {"encrypted": encrypted, "state_path": state, "dead_holders": dead, "auto_apply": auto}
        return _order(run, phase, pool, spec, slot=slot, token=token, **facts)
    except Exception as error:
        if is_outage(error):
            raise
        if not isinstance(error, TerraslotError | ValidationError):
            log.exception("order can't be made", **run.about | {"phase": phase.value})
        raise NotMade(f"The order for its {phase} can't be made: {explained(error)}") from error


def _applies_itself(run: Run, workspace: WorkspaceSpec) -> bool:
    """Whether the apply of a run's plan needs nobody; a plan of a workspace that applies its plans has no apply."""
    return run.kind is RunKind.PLAN_AND_APPLY and run.auto_apply and workspace.approval.is_given_by(run.actor)


def oldest_agent(session: Session, order: Order, pool: PoolSpec) -> int:
    """Return the oldest version of an agent that executes an order as it is meant."""
    needed = OPTIONS_SINCE if order.options != OrderOptions() else OLDEST_AGENT
    match order.source:
        case ArchiveSource() | GitSource(submodules=True):
            return max(needed, SOURCES_SINCE)
        case GitSource() if order.encrypted and SSH_KEY in _sensitive(session, order, pool):
            return max(needed, SOURCES_SINCE)  # an older one would give the key to Terraform, and not to ssh
    return needed


def _sensitive(session: Session, order: Order, pool: PoolSpec) -> tuple[str, ...]:
    return (*pool.sensitive, *workspaces.get(session, order.workspace).sensitive)


def send(
    system: System, sent: Sequence[tuple[Run, Order]], *, tell: Callable[[System, Run], Step] | None = None
) -> None:
    """Send orders to the agents of their runs. A second copy changes nothing: its token is redeemed once.

    The state that one is to push is sent before it; what is to ``tell`` the runs' callers in the same round trip. What
    is wrong with one is logged, and reconcile sends it again.
    """
    told, steps = [], {}
    for run, order in sent:
        with isolate("order not sent", **run.about):
            try:
                rescued.hand_over(system, order, run.pool)
            except NoKey as error:  # an outage of this one alone: the others go to their agents
                log.warning("order waits for a key", **run.about, why=str(error))
                continue
            if (order.dead_holders or order.auto_apply) and not _is_of_version_2(system, run):
                order = order.model_copy(update={"dead_holders": (), "auto_apply": False})  # noqa: PLW2901
            told += [tell(system, run)] if tell else []
            steps[run.id] = _step(system, run, names.EXECUTE_ORDER, {"order": order.wire()})
    _expect_taken(steps, system.run_together(told, list(steps.values())))


def _is_of_version_2(system: System, run: Run) -> bool:
    agent = system.slots(run.pool).agent(run.agent or "")
    return agent is not None and agent.protocol >= LOCKS_SINCE


def _order(run: Run, phase: Phase, pool: PoolSpec, workspace: WorkspaceSpec, **facts: Any) -> Order:
    return Order(
        run=run.id,
        workspace=run.workspace,
        kind=run.kind,
        phase=phase,
        source=workspace.source,
        commit=run.commit,
        variables=workspace.variables,
        environment=workspace.environment,
        destroy=run.destroy,
        options=OrderOptions(**(run.options or {})),
        timeout=workspace.timeout(phase, pool),
        interrupt_grace=pool.timeouts.interrupt,
        # An apply has its plan's program, and its agent may be one that does not know the field.
        terraform=run.terraform if phase is Phase.PLAN else None,
        **facts,
    )


def send_cancel(system: System, run: Run, mode: CancelMode) -> None:
    """Send a cancel to the agent of an executing run, which its next heartbeat would find as well."""
    request = CancelRequest(run=run.id, token=run.token or "", mode=mode)
    steps = {run.id: _step(system, run, names.CANCEL_ORDER, {"request": request.wire()})}
    _expect_taken(steps, system.run_together([], list(steps.values())))


def _step(system: System, run: Run, task: str, kwargs: dict[str, Any]) -> Step:
    agent = run.agent or ""
    # Variables never leave the message itself: Flower and logs show its representations.
    shown = {"argsrepr": "()", "kwargsrepr": f"{{'run': '{run.id}'}}"}
    headers = {names.ATTEMPT_HEADER: run.attempt} | ({names.TRACE_HEADER: run.trace} if run.trace else {})
    sent = message(system.celery, task, kwargs, names.orders_queue(run.pool, agent), headers, **shown)
    return order_queue.send(run.pool, agent, sent)


def _expect_taken(runs: Iterable[str], replies: Iterable[Any]) -> None:
    """Log what an agent's queue has refused: the agent may have made anything of it."""
    for run, reply in zip(runs, replies, strict=True):
        if isinstance(reply, Damaged):
            log.error("order not sent", run=run, why=str(reply))
