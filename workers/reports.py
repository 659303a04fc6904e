"""The report reader: ``python -m workers.reports`` reads what agents report.

What an agent sends is data, from whoever can read its pool's credential: it names no task and no queue, is bounded
before it is read, and is dropped with a line in the log where it is not understood. So this program has no encryption
keys and no way to the cluster: it stores what was reported, frees slots, and asks control workers for the rest. Each
pool has a queue of its own, and each round takes a few reports of each, so that a pool whose queue is full delays no
other. Those of one pool are taken together; where one of them can't be, each by itself.

Reports need no acknowledgement: an agent repeats what counts until the slot map shows that it was taken.
"""

import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain

import structlog

from workers import logs, metrics, traces
from workers.protocol.errors import Damaged, TerraslotError
from workers.services.errors import is_outage, isolate
from workers.services.runs.undeliverable import receive, receive_together
from workers.services.system import System, without_pods
from workers.settings import settings
from workers.slots.report_queue import Found, ReportQueue, WakeUps, mark_read, older_reports

log = structlog.get_logger(__name__)

THREADS = 4
_PER_ROUND = 32  # of each pool: they are taken in one transaction, of which SQLite has one at a time
_OLDER_AT_ONCE = 200  # of all agents before 0.2, once a second: below what a worker takes in that time
# Seconds. A wake-up may be lost, and agents before 0.2 send none: everything is looked at this often.
_LOOK_SECONDS = 1.0
_AWAY_SECONDS = 1.0


class Reader:
    """Takes reports out of their queues, until it is stopped."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._stopping = threading.Event()
        # A probe looks at its age.
        self._alive = system.settings.home / "reports-reader"
        self._look_at = 0.0
        self._pools: set[str] = set()

    def stop(self, *_: object) -> None:
        """End after what has been taken out."""
        self._stopping.set()

    def run(self) -> None:
        """Read until :meth:`stop`; servers that are away are waited for."""
        self._alive.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ThreadPoolExecutor(THREADS, "reports") as threads, WakeUps(self._system.redis) as wake_ups:
            while not self._stopping.is_set():
                self._alive.touch()  # also while a server is away, which no new process would bring back
                try:
                    self._round(threads, wake_ups)
                except Exception as error:
                    if not is_outage(error):
                        raise
                    log.warning("reports can't be read: trying again", error=str(error))
                    self._stopping.wait(_AWAY_SECONDS)

    def _round(self, threads: ThreadPoolExecutor, wake_ups: WakeUps) -> None:
        self._pools |= wake_ups.wait(0 if self._pools else self._look_at - time.monotonic())
        found: list[Sequence[Found]] = []
        if time.monotonic() >= self._look_at:
            self._pools |= set(self._system.pool_names())
            found.append(older_reports(self._system.broker, _OLDER_AT_ONCE))
            mark_read(self._system.redis)
            self._look_at = time.monotonic() + _LOOK_SECONDS
        for pool in sorted(self._pools):
            taken = self._take(pool)
            found.append(taken)
            if len(taken) < _PER_ROUND:
                self._pools.discard(pool)
        left = threads.map(partial(receive_together, self._system), filter(None, found))
        for _ in threads.map(self._receive, chain.from_iterable(left)):
            pass

    def _take(self, pool: str) -> list[Found]:
        """Take some reports of a pool; what an agent has put in the place of its queue is removed."""
        queue = ReportQueue(self._system.redis, pool)
        try:
            return queue.take(_PER_ROUND)
        except Damaged as error:
            log.warning("queue of reports removed, it is none", pool=pool, error=str(error))
            queue.remove()
            return []

    def _receive(self, found: Found) -> None:
        try:
            with isolate("report not taken", pool=found.pool):
                receive(self._system, found)
        except Exception as error:  # noqa: BLE001 - an outage: every other error is one report's own
            log.warning("report not taken, a server is away: its agent sends it again", error=str(error))


def main() -> int:
    """Read reports until SIGTERM or SIGINT."""
    try:
        from workers.app import app  # noqa: PLC0415 - it reads the settings

        logs.configure(settings().log_level, settings().log_format)
        reader = Reader(without_pods(settings(), app))
        metrics.serve(settings().metrics_address, settings().metrics_port)
        traces.begin(settings().traces_to)
    except TerraslotError as error:
        print(error, file=sys.stderr)  # noqa: T201 - there is no log yet
        return 2
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, reader.stop)
    reader.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
