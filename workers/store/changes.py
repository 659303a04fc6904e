"""What has happened lately, whichever run it happened to."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from workers.store.models import RunEventRecord

# PostgreSQL gives an id when a row is written, and shows the row when its transaction ends: one that ends late has a
# lower id than what was seen before it. That many ids before the latest are read again.
_OVERLAP = 256


def events_from(session: Session, latest: int | None) -> dict[int, str]:
    """Return the run of each event after ``latest``, and of some before it, by the event's id; None: the newest."""
    found = select(RunEventRecord.id, RunEventRecord.run).order_by(RunEventRecord.id.desc())
    found = found.limit(_OVERLAP) if latest is None else found.where(RunEventRecord.id > latest - _OVERLAP)
    return {event.id: event.run for event in session.execute(found)}
