"""What an agent keeps in its directory for its next process, its supervisor, and the control plane where it is local.

``CHILDREN/PID`` is on record while a child lives, and names what a dead agent left running. ``APPLY`` is there while an
apply is under way, ``REPORTS`` are those that no heartbeat has seen taken, ``ENDED/PID`` says how a child of a dead
agent ended, and ``RUNS`` are the runs' directories.

A configuration may have written any of it: what can't be read is no record, and nothing in it is about another run.
"""

import json
from dataclasses import asdict, dataclass

CHILDREN, APPLY, REPORTS, ENDED, RUNS = "children", "apply.json", "reports", "ended", "runs"
# Seconds. Linux rounds the time of its boot, in which start times count, to a whole second anew at every reading.
_CLOCK_ROUNDING = 1.5


@dataclass(frozen=True, slots=True)
class ChildRecord:
    """A child, and which process it is; a pid alone is another process's later.

    ``run``: its run, where the agent's next process goes on with it.
    ``started``: seconds since the epoch. ``interrupted``: it was sent the one SIGINT that a Terraform may get; a second
    one makes it abort without storing its state.
    """

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
        if int(name) <= 1:
            return None  # no child's, and a group that must not be signalled
        return ChildRecord(
            int(name), float(found["started"]), str(found.get("run", "")), bool(found.get("interrupted"))
        )
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return None
