"""What a pending run waits for, told from facts."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class MaintenanceLock:
    """Somebody holds the state-changing runs of a workspace that have not started: ``by`` whom, since when, and why."""

    by: str
    at: datetime
    message: str

    def __str__(self) -> str:
        return f"locked by {self.by} since {self.at:%Y-%m-%d %H:%M} UTC: {self.message}"
