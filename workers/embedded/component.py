"""``python -m workers.embedded.component NAME POOL``: one process of an embedded system's control plane.

The same as two of ``celery -A workers worker``, one for what people ask for and one for what asks a cluster, ``python
-m workers.reports`` and ``celery -A workers beat``. Celery's command line would import every command that is installed,
Flower too: half a second of each start. All but beat bring the database up to date first, each for itself, and the
workers make sure that POOL, a JSON document, exists: that is safe at once and again, and a worker that answers has its
database.
"""

import sys
from pathlib import Path

from workers.protocol import names
from workers.protocol.errors import TerraslotError
from workers.specs.pools import PoolSpec

BEAT, CONTROL, CLUSTER, REPORTS = "beat", "control", "cluster", "reports"
_QUEUES = {CONTROL: names.REQUEST_QUEUES, CLUSTER: (names.CLUSTER_QUEUE,)}


def node(name: str) -> str:
    """Return the Celery node name of a worker of the embedded system."""
    return f"{name}@terraslot"


def ready_file(home: Path, name: str) -> Path:
    """Return what a worker makes once it consumes."""
    return home / f"{name}.ready"


def main(name: str, pool: str) -> int:
    """Be that process until SIGTERM, and return the exit code."""
    if name == BEAT:
        from workers.app import build_app  # noqa: PLC0415 - each component loads what it needs

        # It names the tasks that it sends and needs none of them.
        build_app("terraslot-beat", queues=[], include=[]).Beat(quiet=True).run()
        return 0
    if name == REPORTS:
        from workers import reports  # noqa: PLC0415
        from workers.settings import settings  # noqa: PLC0415
        from workers.store.database import Database  # noqa: PLC0415

        Database(settings().database).migrate()
        return reports.main()
    from celery import signals  # noqa: PLC0415

    from workers.app import app  # noqa: PLC0415
    from workers.settings import settings  # noqa: PLC0415

    _prepare_database(PoolSpec.model_validate_json(pool))
    signals.worker_ready.connect(lambda **_: ready_file(settings().home, name).touch(), weak=False)
    worker = app.Worker(
        hostname=node(name),
        queues=_QUEUES[name],
        pool="threads",
        concurrency=8,
        without_gossip=True,
        without_mingle=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


def _prepare_database(pool: PoolSpec) -> None:
    from workers.services.pools import manage  # noqa: PLC0415
    from workers.services.system import system  # noqa: PLC0415

    system().database.migrate()
    manage.ensure(system(), pool)


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except TerraslotError as error:
        sys.exit(str(error))
