"""Progress of a run on the screen: its log line by line, what it waits for, and its statuses.

On a terminal the last of these stays below the log, beside a spinner; elsewhere each is a line of its own, once.
"""

from types import TracebackType
from typing import Self

from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from workers.cli.console import clean, console, say
from workers.slots.log_stream import LogLine


class Progress:
    """Shows the progress of one run, on stdout, or on stderr where stdout is kept for JSON."""

    def __init__(self, *, errors: bool = False) -> None:
        self._errors = errors
        self._console = console(errors=errors)
        self._live: Live | None = None
        self._status = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.pause()

    def status(self, words: str) -> None:
        """Show where the run stands; a repeated text is not shown again."""
        if words == self._status:
            return
        self._status = words
        if not self._console.is_terminal:
            say(words, errors=self._errors)
            return
        spinner = Spinner("dots", Text(clean(words), style="cyan"))
        if self._live is None:
            self._live = Live(spinner, console=self._console, transient=True, refresh_per_second=8)
            self._live.start()
        else:
            self._live.update(spinner)

    def line(self, line: LogLine) -> None:
        """Show a line of the log."""
        say(line.text, errors=self._errors)

    def note(self, words: str, style: str = "yellow") -> None:
        """Print something that stays on the screen."""
        say(words, style=style, errors=self._errors)

    def pause(self) -> None:
        """Clear the status line, until the next status."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._status = ""
