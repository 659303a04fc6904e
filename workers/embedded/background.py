"""The embedded system in the background: started, and stopped, from another process."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from workers.cluster import process_log, processes
from workers.cluster.local import LocalPods
from workers.cluster.processes import Process
from workers.core import errors
from workers.embedded import state
from workers.embedded.interrupts import Interrupts
from workers.embedded.options import Options, environment
from workers.embedded.shutdown import Progress, shut_down
from workers.embedded.state import Running
from workers.protocol.errors import TerraslotError, Unavailable
from workers.settings import settings

_PROGRAM = (sys.executable, "-P", "-m", "workers.embedded")
# Longer than an agent's grace, its terraform's and every child's patience together: then the supervisor is stuck.
_LONGEST_STOP = 240.0
_TICK = 0.05


def detach(options: Options, progress: Progress = lambda _: None, tied_to: int | None = None) -> Running:
    """Start an embedded system in the background and return when it is ready.

    ``tied_to`` is for :func:`~workers.embedded.supervisor.up`, and so are the errors; a Ctrl-C ends what was started.
    """
    log = _log(options.home)
    said, tell = os.pipe()
    keep = [tell] if tied_to is None else [tell, tied_to]
    with os.fdopen(said) as reader:
        try:
            process = processes.start(
                [*_PROGRAM, options.model_dump_json(), *map(str, keep)],
                environment=environment(options.home),
                directory=options.home,
                log=log,
                keep=keep,
            )
        finally:
            os.close(tell)
        try:
            is_ready = _listen(reader, progress)
        except KeyboardInterrupt:
            process.send(signal.SIGTERM)
            reader.read()
            raise
    running = state.running(options.home) if is_ready else None
    if running is None:
        raise Unavailable(f"The embedded system ended while it started: {process_log.last_line(log)}. See {log}.")
    settings.cache_clear()
    return running


def down(home: Path, progress: Progress = lambda _: None) -> bool:
    """End the embedded system under ``home``, and what a killed one left; False if there was nothing to end.

    To be called by the main thread: a Ctrl-C meanwhile makes the system hurry.
    """
    with Interrupts() as interrupts:
        owner = state.supervisor(home)
        if owner is not None:
            _end(owner, interrupts, progress)
        left = state.running(home)
        agents = _agents(home)
        if left is not None or agents:
            with state.owned(home):
                shut_down(home, left or Running(redis_url=""), interrupts, progress)
    settings.cache_clear()
    return owner is not None or left is not None or agents


def serve(options: Options, tell: int, tied_to: int | None = None) -> None:
    """Run an embedded system for :func:`detach`, which reads what happens from the pipe ``tell`` until it is ready."""
    from workers.embedded.supervisor import up  # noqa: PLC0415 - costs a second that only this process has to spend

    with os.fdopen(tell, "w", buffering=1) as listener:

        def say(kind: str, what: object) -> None:
            print(json.dumps({kind: what}), flush=True)  # noqa: T201 - this is its log
            if not listener.closed:
                with suppress(BrokenPipeError):  # nobody listens any more; the system goes on
                    listener.write(json.dumps({kind: what}) + "\n")

        def ready(_: Running) -> None:
            say("ready", True)
            listener.close()

        try:
            up(options, lambda sentence: say("progress", sentence), ready, tied_to)
        except TerraslotError as error:
            say("error", [type(error).__name__, str(error)])
            raise SystemExit(1) from None


def _agents(home: Path) -> bool:
    pods = LocalPods(home, {})
    return any(pods.list(pool) for pool in pods.pools())


def _log(home: Path) -> Path:
    log = home / "logs" / "up.log"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        log.parent.mkdir(exist_ok=True)
        process_log.bound(log)
    except OSError as error:
        raise state.unusable(home, error) from error
    return log


def _listen(said: Iterable[str], progress: Progress) -> bool:
    """Pass on progress until the system is ready; False if it ended without a word."""
    for line in said:
        match json.loads(line):
            case {"progress": sentence}:
                progress(sentence)
            case {"ready": _}:
                return True
            case {"error": [name, sentence]}:
                raise getattr(errors, name, Unavailable)(sentence)
    return False


def _end(owner: Process, interrupts: Interrupts, progress: Progress) -> None:
    """Tell a supervisor to end, and again whenever somebody presses Ctrl-C; kill one that is stuck."""
    progress("Stopping")
    owner.send(signal.SIGTERM)
    told, until = 0, time.monotonic() + _LONGEST_STOP
    while owner.alive:
        if interrupts.wait(_TICK) > told:
            told += 1
            owner.send(signal.SIGTERM)
        if time.monotonic() >= until:
            owner.send(signal.SIGKILL)
