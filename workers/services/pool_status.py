"""The status message of a pool: what keeps it from its desired state."""

from workers.services.system import System
from workers.store import pools

_NOW = "at the moment: "


def status(system: System, name: str) -> str | None:
    """Return what keeps a pool from its desired state. Raises :class:`UnknownPool`."""
    with system.database.read() as session:
        return pools.status(session, name)


def set_status(system: System, pool: str, problem: str | None) -> None:
    """Store the problem that a pool has at the moment; None removes the last one, and no other status message."""
    with system.database.read() as session:
        before = pools.status(session, pool)
    message = f"{_NOW}{problem}" if problem else None
    if message != before and (message or (before or "").startswith(_NOW)):
        with system.database.begin() as session:
            pools.set_status(session, pool, message, system.now())
