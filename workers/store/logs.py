"""The stored pieces of runs' logs, numbered from 1. They go with their run."""

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from workers.core.logs import surplus
from workers.store.database import insert_if_new
from workers.store.models import Base, RunLogPiece

_logs = Base.metadata.tables["run_logs"]


def newest(session: Session, run: str) -> tuple[int, str]:
    """Return the number of a run's newest piece and the id of its last line; 0 and "0" where there is none."""
    found = select(_logs.c.number, _logs.c.last).where(_logs.c.run == run).order_by(_logs.c.number.desc()).limit(1)
    row = session.execute(found).first()
    return (row.number, row.last) if row else (0, "0")


def following(session: Session, run: str, number: int) -> RunLogPiece | None:
    """Return the piece that follows the one with this number."""
    wanted = select(RunLogPiece).where(RunLogPiece.run == run, RunLogPiece.number > number)
    return session.scalar(wanted.order_by(RunLogPiece.number).limit(1))


def add(session: Session, run: str, number: int, *, last: str, lines: int, content: bytes) -> bool:
    """Add a piece, and empty middle ones where the run's budget is spent; False where one of this number is there."""
    if not insert_if_new(session, _logs, run=run, number=number, last=last, lines=lines, content=content):
        return False
    sizes = select(_logs.c.number, func.length(_logs.c.content)).where(_logs.c.run == run).order_by(_logs.c.number)
    rows = session.execute(sizes).all()
    if gone := [number for number, _ in rows[1 : 1 + surplus([size for _, size in rows])]]:
        session.execute(update(_logs).where(_logs.c.run == run, _logs.c.number.in_(gone)).values(content=b""))
    return True
