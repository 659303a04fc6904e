"""Looking again every second: on a terminal in place until q or Ctrl-C, elsewhere one after the other."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from workers.cli.console import clean, console, show_json
from workers.services.errors import user_message

_REFRESH = 1.0


def watch(look: Callable[[], Any], *, as_json: bool) -> None:
    """Show what ``look`` returns, again and again: with ``as_json`` as one document a line."""
    if console().is_terminal and not as_json:
        in_place(look)
        return
    with suppress(KeyboardInterrupt):
        while True:
            show_json(look(), indent=None) if as_json else console().print(look())
            time.sleep(_REFRESH)


def in_place(look: Callable[[], RenderableType], *, screen: bool = False) -> None:
    """Show on the terminal what ``look`` returns, in place; with ``screen`` on a screen of its own, which then goes.

    Where a later look fails by what a person can do something about, such as a server that restarts, the last view
    stays beside the sentence.
    """
    seen = look()
    live = Live(console=console(), auto_refresh=False, screen=screen)
    with suppress(KeyboardInterrupt), _keys() as pressed, live:
        live.update(seen, refresh=True)
        while pressed() != "q":
            try:
                shown = seen = look()
            except Exception as error:
                words = user_message(error)
                if words is None:
                    raise
                shown = Group(Text(clean(words), style="bold red"), seen)
            live.update(shown, refresh=True)


@contextmanager
def _keys() -> Iterator[Callable[[], str]]:
    """Yield what waits for the next look, and returns the key that is pressed meanwhile; nothing for none."""
    keyboards = [sys.stdin.fileno()] if sys.stdin.isatty() else []

    def pressed() -> str:
        ready, _, _ = select.select(keyboards, [], [], _REFRESH)
        return os.read(ready[0], 1).decode(errors="replace") if ready else ""

    if not keyboards:
        yield pressed
        return
    (keyboard,) = keyboards
    before = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard)  # keys come without Enter, and Ctrl-C still interrupts
        yield pressed
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
