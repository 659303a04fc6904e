"""``python -m agent``: one agent, configured by its environment alone."""

import sys

from agent.spawner import SPAWNER
from agent.supervisor import supervise

# Celery, kombu, redis-py and structlog load these where they are installed, 11 MB of a laptop's local agent. None is
# among what an agent installs, and none is used by it. To Python, a module that is None can't be imported.
_NOT_NEEDED = ("colorama", "greenlet", "opentelemetry", "psutil", "rich", "yaml")


def _work() -> int:
    SPAWNER.start()
    sys.modules.update(dict.fromkeys(_NOT_NEEDED))  # type: ignore[arg-type]
    from agent.app import load  # noqa: PLC0415 - the supervisor stays small

    worker = load().Worker()
    worker.start()
    return worker.exitcode or 0


if __name__ == "__main__":
    sys.exit(supervise(_work))
