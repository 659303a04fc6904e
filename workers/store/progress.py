"""How far the applies of runs have come by their end: one of a run; lists of runs do not read them."""

from sqlalchemy.orm import Session

from workers.protocol.progress import Progress
from workers.store.database import insert_if_new
from workers.store.models import Base, RunProgress

_progress = Base.metadata.tables["run_progress"]


def keep(session: Session, run_id: str, progress: Progress | None) -> None:
    """Store how far the apply of a run has come by its end; None, or a second one, changes nothing."""
    if progress is not None:
        insert_if_new(session, _progress, run=run_id, detail=progress.compact())


def of(session: Session, run_id: str) -> Progress | None:
    """Return how far the apply of a run has come by its end; None where that is not on record."""
    kept = session.get(RunProgress, run_id)
    return None if kept is None else Progress.model_validate(kept.detail)
