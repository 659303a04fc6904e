"""The record of an agent's child: ``WORK_DIR/children/PID``, which agent and control plane read.

It names what a dead agent left running. ``started`` is in seconds since the epoch: a pid alone is another process's
later. ``interrupted`` says that the one SIGINT was sent that a Terraform may get: a second one makes it abort without
storing its state. A configuration may have written it: what can't be read is no record.
"""

import json
from dataclasses import asdict, dataclass

DIRECTORY = "children"
# Seconds. Linux rounds the time of its boot, in which start times count, to a whole second anew at every reading.
_CLOCK_ROUNDING = 1.5


@dataclass(frozen=True, slots=True)
class ChildRecord:
    """A child: its pid and start time, its run, and whether it was sent its one SIGINT."""

    pid: int
    started: float
    run: str = ""
    interrupted: bool = False

    def is_of(self, started: float | None) -> bool:
        """Whether a process with this pid that started then is the child."""
        return started is not None and abs(started - self.started) <= _CLOCK_ROUNDING

    def content(self) -> str:
        """Return what its file holds."""
        return json.dumps(asdict(self))


def parse(name: str, content: bytes) -> ChildRecord | None:
    """Return the record in a file of this name; None where it is none."""
    try:
        found = json.loads(content)
        return ChildRecord(
            int(name), float(found["started"]), str(found.get("run", "")), bool(found.get("interrupted"))
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
