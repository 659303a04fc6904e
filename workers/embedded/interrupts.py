"""Signals as something to wait for: the supervisor asks how often it was told to stop."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Counts SIGINT, SIGTERM and SIGHUP of the main thread while it is entered, instead of dying of them.

    ``tied_to`` is the reading end of a pipe whose other end a parent holds: its death counts as one signal.
    """

    def __init__(self, tied_to: int | None = None) -> None:
        self.count = 0
        self._tied_to = tied_to
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._awake, self._wake = os.pipe()
        os.set_blocking(self._awake, False)
        os.set_blocking(self._wake, False)
        self._before = {number: signal.signal(number, self._told) for number in _STOPPING}
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._awake)
        os.close(self._wake)

    def wait(self, seconds: float) -> int:
        """Wait for so long, or until a signal comes; return how many came so far."""
        watched = [self._awake] if self._tied_to is None else [self._awake, self._tied_to]
        ready, _, _ = select.select(watched, [], [], seconds)
        if self._awake in ready:
            os.read(self._awake, 1024)
        if self._tied_to in ready:
            self._tied_to = None
            self.count += 1
        return self.count

    def _told(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        with suppress(BlockingIOError):  # nobody has read the last thousands: whoever waits wakes up anyway
            os.write(self._wake, b"!")
