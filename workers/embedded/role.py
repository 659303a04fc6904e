"""``python -m workers.embedded.role ROLE POOL``: one process of the control plane, as the embedded system starts it.

The same apps with the same options as ``celery -A workers worker``, ``celery -A workers.reports worker`` and ``celery
-A workers beat``. Celery's command line would import every command that is installed, Flower too: half a second of
each start. The workers bring the database up to date first, each for itself, and make sure that POOL, a JSON
document, exists: that is safe at once and again, and whoever waits for a worker has waited for its database.
"""

from __future__ import annotations

import sys

from celery import Celery

from workers.protocol.errors import TerraslotError
from workers.specs.pools import PoolSpec

BEAT, CONTROL, REPORTS = "beat", "control", "reports"


def node(role: str) -> str:
    """Return the Celery node name of a worker of the embedded system."""
    return f"{role}@terraslot"


def main(role: str, pool: str) -> int:
    """Be that process until SIGTERM, and return the exit code."""
    if role == BEAT:
        return _beat()
    _prepare_database(PoolSpec.model_validate_json(pool))
    app, threads = _app_of(role)
    worker = app.Worker(
        hostname=node(role), pool="threads", concurrency=threads, without_gossip=True, without_mingle=True
    )
    worker.start()
    return int(worker.exitcode or 0)


def _prepare_database(pool: PoolSpec) -> None:
    from workers.services.pools import manage as pools  # noqa: PLC0415 - each role loads what it needs
    from workers.services.system import system  # noqa: PLC0415

    system().database.migrate()
    pools.ensure(system(), pool)


def _app_of(role: str) -> tuple[Celery, int]:
    if role == REPORTS:
        from workers.reports import app as reports  # noqa: PLC0415

        return reports, 4
    from workers.app import app  # noqa: PLC0415

    return app, 8


def _beat() -> int:
    from workers.app import build_app  # noqa: PLC0415

    # It names the tasks that it sends and needs none of them.
    build_app("terraslot-beat", queues=[], include=[]).Beat(quiet=True).run()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except TerraslotError as error:
        sys.exit(str(error))
