"""What the plans of runs would do with each resource: one of a run, the latest; lists of runs do not read them."""

from sqlalchemy.orm import Session

from workers.protocol.plan_detail import PlanDetail
from workers.store.models import Run, RunPlan


def keep(session: Session, run: Run, detail: PlanDetail | None) -> None:
    """Store what the plan of a run's attempt would do, in the place of an earlier one's; None leaves that."""
    if detail is not None:
        session.merge(RunPlan(run=run.id, attempt=run.attempt, detail=detail.compact()))


def of(session: Session, run_id: str, attempt: int) -> PlanDetail | None:
    """Return what the plan of this attempt would do with each resource; None where there is none on record."""
    kept = session.get(RunPlan, run_id)
    return PlanDetail.model_validate(kept.detail) if kept is not None and kept.attempt == attempt else None
