"""``python -m agent.probe ready|alive``: what the kubelet asks. Exit code 0 is yes; the reason for a no is printed."""

import os
import sys
import time
from pathlib import Path

from agent import liveness

READY, ALIVE = "ready", "alive"


def main(question: str) -> int:
    """Answer for the agent that works in ``TERRASLOT_WORK_DIR``."""
    found = liveness.read(Path(os.environ.get("TERRASLOT_WORK_DIR", ".")))
    if found is None:
        problem: str | None = "no agent works here"
    elif question == READY:
        problem = None if found.registered else "the agent is not registered"
    else:
        problem = liveness.stuck(found, time.monotonic())
    if problem:
        print(problem)  # noqa: T201 - the kubelet shows it
    return int(problem is not None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) == 2 and sys.argv[1] in (READY, ALIVE) else ALIVE))  # noqa: PLR2004
