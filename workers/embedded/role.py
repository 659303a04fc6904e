"""``python -m workers.embedded.role ROLE``: one process of the control plane, as the embedded system starts it.

The same apps with the same options as ``celery -A workers worker``, ``celery -A workers.reports worker`` and ``celery
-A workers beat``. Celery's command line would import every command that is installed, Flower too: half a second of
each start.
"""

from __future__ import annotations

import sys

from celery import Celery

BEAT, CONTROL, REPORTS = "beat", "control", "reports"


def node(role: str) -> str:
    """Return the Celery node name of a worker of the embedded system."""
    return f"{role}@terraslot"


def main(role: str) -> int:
    """Be that process until SIGTERM, and return the exit code."""
    if role == BEAT:
        return _beat()
    app, threads = _app_of(role)
    worker = app.Worker(
        hostname=node(role), pool="threads", concurrency=threads, without_gossip=True, without_mingle=True
    )
    worker.start()
    return int(worker.exitcode or 0)


def _app_of(role: str) -> tuple[Celery, int]:
    if role == REPORTS:
        from workers.reports import app as reports  # noqa: PLC0415 - each role loads what it needs

        return reports, 4
    from workers.app import app  # noqa: PLC0415

    return app, 8


def _beat() -> int:
    from workers.app import build_app  # noqa: PLC0415

    # It names the tasks that it sends and needs none of them.
    build_app("terraslot-beat", queues=[], include=[]).Beat(quiet=True).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
