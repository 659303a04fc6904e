"""Waiting in tests: for a condition, with a deadline; never for a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], timeout: float = 60, every: float = 0.01) -> T:
    """Return the first true answer of ``condition``; fail if there is none within ``timeout`` seconds."""
    deadline, pause = time.monotonic() + timeout, threading.Event()
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"no true answer within {timeout} s, the last one: {answer!r}"
        pause.wait(every)
    return answer
