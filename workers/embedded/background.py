"""The embedded system in the background: the same in a session of its own, ended from another process.

``python -m workers.embedded.background OPTIONS [FD]`` is that session. Each step is a line of stdout; what keeps the
system from running is the last line, with the exit code :data:`REFUSED`.
"""

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from workers.cluster import process_log, processes
from workers.cluster.local import LocalPods
from workers.cluster.processes import Process
from workers.embedded import state
from workers.embedded.shutdown import Interrupts, Progress, shut_down
from workers.embedded.state import Options, Running
from workers.embedded.supervisor import up
from workers.protocol.errors import TerraslotError, Unavailable
from workers.settings import settings

REFUSED = 3
# Seconds: the grace of agents and Terraform and the patience with each component, together.
_LONGEST_STOP = 240.0
_TICK = 0.05


def detach(options: Options, progress: Progress = lambda _: None, tied_to: int | None = None) -> Running:
    """Start an embedded system in the background and return when it is ready.

    ``tied_to`` is for :func:`~workers.embedded.supervisor.up`. Raises :class:`Unavailable` with what that says where
    it can't run; a Ctrl-C ends what was started.
    """
    state.make_home(options.home)
    log = options.home / "logs" / "up.log"
    process_log.bound(log)
    begin = log.stat().st_size if log.exists() else 0
    keep = [] if tied_to is None else [tied_to]
    process = processes.start(
        [sys.executable, "-P", "-m", "workers.embedded.background", options.model_dump_json(), *map(str, keep)],
        environment=state.environment(options.home), directory=options.home, log=log, keep=keep,
    )  # fmt: skip
    last = ""
    try:
        for last in _lines_until_ready(options.home, process, log, begin):
            progress(last)
    except KeyboardInterrupt:
        process.send(signal.SIGTERM)
        while process.alive:
            time.sleep(_TICK)
        raise
    if not process.alive:
        if process.exit_code() == REFUSED:
            raise Unavailable(last)
        raise Unavailable(f"The embedded system ended while it started: {process_log.last_line(log)}. See {log}.")
    settings.cache_clear()
    running = state.running(options.home)
    if running is None:
        raise Unavailable(f"The embedded system is being stopped. See {log}.")
    return running


def down(home: Path, progress: Progress = lambda _: None) -> bool:
    """End the embedded system under ``home``, and what a killed one left; False if there was nothing to end.

    To be called by the main thread: a Ctrl-C meanwhile shortens the grace that agents have.
    """
    with Interrupts() as interrupts:
        owner = state.supervisor(home)
        if owner is not None:
            _end(owner, interrupts, progress)
        left = state.running(home)
        pods = LocalPods(home, {})
        agents = any(pods.list(pool) for pool in pods.pools())
        if left is not None or agents:
            with state.owned(home):
                shut_down(home, left or Running(redis_url=""), interrupts, progress)
    settings.cache_clear()
    return owner is not None or left is not None or agents


def _lines_until_ready(home: Path, process: Process, log: Path, begin: int) -> Iterator[str]:
    """Return the lines that a starting system writes, until it is ready or has ended."""
    with log.open() as lines:
        lines.seek(begin)
        while True:
            # Asked before the last lines are read: what it says while it ends is said by then.
            running = state.running(home)
            over = not process.alive or (running is not None and running.ready and running.owner == process)
            yield from (line.rstrip("\n") for line in lines)
            if over:
                return
            time.sleep(_TICK)


def _end(owner: Process, interrupts: Interrupts, progress: Progress) -> None:
    """Tell a supervisor to end, and again at each Ctrl-C; kill one that is stuck."""
    progress("Stopping")
    owner.send(signal.SIGTERM)
    told, until = 0, time.monotonic() + _LONGEST_STOP
    while owner.alive:
        if interrupts.wait(_TICK) > told:
            told += 1
            owner.send(signal.SIGTERM)
        if time.monotonic() >= until:
            owner.send(signal.SIGKILL)


if __name__ == "__main__":
    try:
        up(Options.model_validate_json(sys.argv[1]), print, tied_to=int(sys.argv[2]) if len(sys.argv) > 2 else None)  # noqa: PLR2004
    except TerraslotError as error:
        print(error)  # noqa: T201 - this is its log
        sys.exit(REFUSED)
