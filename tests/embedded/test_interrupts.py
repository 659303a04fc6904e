"""The supervisor waits for signals instead of dying of them."""

import os
import signal
import time

from workers.embedded.shutdown import Interrupts


def test_signals_are_counted_and_end_a_wait_at_once():
    with Interrupts() as interrupts:
        assert interrupts.wait(0) == 0
        os.kill(os.getpid(), signal.SIGTERM)
        began = time.monotonic()
        assert interrupts.wait(60) == 1
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGHUP)
        assert interrupts.wait(0) == 3
        assert time.monotonic() - began < 30


def test_the_former_handlers_are_back_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_end_of_whoever_holds_the_pipe_counts_as_one_signal():
    tied_to, held = os.pipe()
    with Interrupts(tied_to) as interrupts:
        assert interrupts.wait(0) == 0
        os.close(held)
        assert interrupts.wait(60) == 1
        assert interrupts.wait(0.01) == 1
    os.close(tied_to)
