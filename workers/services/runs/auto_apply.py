"""The apply of a run that needs no confirmation, ordered by a control worker once its plan is reported.

The report reader has stored what the plan says. Where the message to the control worker is lost, or comes to one of an
earlier version, the agent reports the end of the plan again: its lease still has the plan's token.
"""

from workers.core.lifecycle import EventDetail, RunEvent, RunStatus
from workers.protocol.kinds import Phase
from workers.protocol.leases import APPLY_SLOT
from workers.services.runs import orders
from workers.services.runs.finish import end, fail
from workers.services.runs.start import start_apply
from workers.services.runs.wake import freed
from workers.services.system import System
from workers.store import pools, runs
from workers.store.models import Run


def order_apply(system: System, run_id: str, token: str) -> None:
    """Order the apply of the plan that was made under ``token``; nothing where its run has gone on without this."""
    new = orders.new_token()
    with system.database.read() as session:
        run = runs.get(session, run_id)
        if (run.status, run.token) != (RunStatus.PLANNING, token):
            return
        spec, why = pools.get(session, run.pool), None
        try:
            order = orders.make(system, session, run, Phase.APPLY, spec, slot=APPLY_SLOT, token=new)
        except orders.NotMade as error:
            why = str(error)
    if run.cancel_mode is not None:
        freed(system, end(system, run, RunEvent.CANCELLED))
    elif why is not None:
        freed(system, fail(system, run, why))
    # Where the lease can't be resumed, its agent is silent, or it has another token since: reconcile decides.
    elif system.slots(run.pool).resume(run.id, token, new) is not None:
        start_apply(system, run, RunEvent.PLANNED_AUTO_APPLY, spec, order, detail=_confirmed_by(run))


def _confirmed_by(run: Run) -> EventDetail | None:
    """Return who asked for a run that needs no other confirmation: the decision to apply is theirs."""
    return {"actor": run.actor} if run.actor else None
