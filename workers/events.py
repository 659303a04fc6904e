"""Sends Celery events, the ones that Flower and other monitors live on, by a thread of its own.

To send is to leave something for that thread: it takes no time from whoever does, and can't fail. Events of a tenth of
a second are one message. They are for looking only: those that can't be sent are dropped, and the oldest of too many.
"""

import atexit
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog
from celery import Celery
from celery.events.event import Event, get_exchange
from celery.utils.time import utcoffset

log = structlog.get_logger(__name__)

# Seconds in which events gather, and that the end of the process waits for the last of them.
_GATHER, _AT_THE_END = 0.1, 2.0
# In one message; and the makers of events that wait for the broker.
_AT_ONCE, _WAITING = 500, 10_000
# Gossip, which reads what has a routing key of workers, has to hear of no agent, and can't read a list.
_ROUTING_KEY = "task.multi"

Fields = Mapping[str, Any]


class Events:
    """Sends events to the broker of an app. Safe for threads."""

    def __init__(self, celery: Celery) -> None:
        self._celery = celery
        self._waiting: deque[Callable[[], Iterable[Fields]]] = deque(maxlen=_WAITING)
        self._wake, self._ending = threading.Event(), threading.Event()
        self._mutex = threading.Lock()
        self._thread: threading.Thread | None = None

    def send(self, make: Callable[[], Iterable[Fields]]) -> None:
        """Send the events that ``make`` returns when the thread calls it: their fields, with type and hostname."""
        self._waiting.append(make)
        self._wake.set()
        if self._thread is None:
            self._start()

    def flush(self) -> None:
        """Send what waits, in this thread. Raises what keeps it from being sent."""
        with self._mutex:
            made: list[dict[str, Any]] = []
            while self._waiting and len(made) < _AT_ONCE:
                made += self._made(self._waiting.popleft())
            if made:
                self._publish(made)

    def _start(self) -> None:
        with self._mutex:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="events", daemon=True)
                self._thread.start()
                atexit.register(self._end)

    def _end(self) -> None:
        self._ending.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_AT_THE_END)

    def _run(self) -> None:
        while not self._ending.is_set():
            self._wake.wait()
            self._ending.wait(_GATHER)
            self._wake.clear()
            while self._waiting:
                try:
                    self.flush()
                except Exception as error:  # noqa: BLE001 - nothing depends on events
                    log.warning("events not sent", error=str(error))

    def _made(self, make: Callable[[], Iterable[Fields]]) -> list[dict[str, Any]]:
        try:
            return [self._event(fields) for fields in make()]
        except Exception:
            log.exception("events not made")
            return []

    def _event(self, fields: Fields) -> dict[str, Any]:
        about = {"utcoffset": utcoffset(), "pid": os.getpid(), "clock": self._celery.clock.forward()}
        event: dict[str, Any] = Event(**{**about, **fields})
        return event

    def _publish(self, events: list[dict[str, Any]]) -> None:
        with self._celery.amqp.producer_pool.acquire(block=True) as producer:
            exchange = get_exchange(producer.connection, name=self._celery.conf.event_exchange)
            producer.publish(
                events, exchange=exchange.name, routing_key=_ROUTING_KEY, declare=[exchange], retry=False,
                serializer=self._celery.conf.event_serializer, delivery_mode="transient",
            )  # fmt: skip
