"""Celery's worker program, with the agent's way to stop.

Celery would stop taking messages at the first SIGTERM, cancels among them, and abandon its tasks at the second.
Here any number of signals means one thing: the agent stops in its own order, and Celery after it.
"""

import faulthandler
import os
import signal
import threading
import warnings
from typing import Any

from celery import bootsteps
from celery.apps.worker import Worker
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning
from celery.worker import state

from agent import supervisor
from workers.protocol.leases import SLOTS_PER_AGENT
from workers.protocol.names import node_name

_TICK_SECONDS = 5.0


class EventLoopTick(bootsteps.StartStopStep):
    """Notes every few seconds that Celery's event loop ticks; a new connection drops all timers and starts it again."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        """Start the timer."""
        consumer.timer.call_repeatedly(_TICK_SECONDS, consumer.app.agent.liveness.ticked)


class AgentWorker(Worker):
    """A Celery worker for one agent; command-line flags do not change its shape."""

    def __init__(self, app: Any = None, **kwargs: Any) -> None:
        self._signals = supervisor.signals
        self._agent = (app or self.app).agent
        self._waker: int | None = None
        settings = self._agent.settings
        kwargs |= {
            "hostname": node_name(settings.pool, settings.agent),
            "pool": "threads",
            "concurrency": SLOTS_PER_AGENT + 1,
            "without_gossip": True,
            "without_mingle": True,
            "without_heartbeat": True,
            "task_events": False,
            "autoscale": None,
            "beat": False,
        }
        super().__init__(app, **kwargs)

    def start(self) -> None:
        """Work until told to stop. However Celery ends, the agent stops in its order."""
        self._agent.resume()
        super().start()
        self._agent.stop()

    def stop(self, in_sighandler: bool = False, exitcode: int | None = None) -> None:
        """Stop, also for a reason of Celery's own such as its remote ``shutdown``: the agent drains meanwhile."""
        self._signals.put(signal.SIGTERM)
        super().stop(in_sighandler=in_sighandler, exitcode=exitcode)

    def on_consumer_ready(self, consumer: Any) -> None:
        """Appear in the slot map, now that orders can be taken."""
        super().on_consumer_ready(consumer)
        # At every lost connection, Celery warns of a default for late acknowledgement, which is not used here.
        warnings.simplefilter("ignore", CPendingDeprecationWarning)
        reader, self._waker = os.pipe()
        consumer.hub.add_reader(reader, os.read, reader, 1)
        self._agent.start()

    def install_platform_tweaks(self, worker: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Handle signals instead of Celery."""
        threading.Thread(target=self._wait_for_signal, name="stop", daemon=True).start()
        for number in supervisor.STOPPING:
            signal.signal(number, self._on_signal)
        # Stacks without their variables: Celery's own handler shows those as well.
        faulthandler.register(signal.SIGUSR1, all_threads=True)

    def on_before_init(self, quiet: bool = False, **kwargs: Any) -> None:
        """Prepare. Running as root is no danger here: messages are JSON, and nothing in them is executed."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)
            super().on_before_init(quiet=quiet, **kwargs)

    def emit_banner(self) -> None:
        """Print nothing: the log says what there is to say."""

    def _on_signal(self, number: int, _frame: Any) -> None:
        # A handler may interrupt itself: this is safe there.
        self._signals.put(number)

    def _wait_for_signal(self) -> None:
        number = self._signals.get()
        self._agent.logger.info("told to stop", signal=signal.Signals(number).name)
        self._agent.stop()
        state.should_stop = 0
        if self._waker is not None:
            os.write(self._waker, b"x")  # Celery reads that flag at each tick of its loop: make it tick now
