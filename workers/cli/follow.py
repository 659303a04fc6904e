"""Following a run: its status from the database, its log from wherever it is, both on the screen."""

import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from workers.cli.console import clean, console, say
from workers.cli.progress import brief
from workers.core.errors import UnknownRun
from workers.core.lifecycle import EXECUTING, RunStatus
from workers.protocol.kinds import Phase
from workers.protocol.log_lines import LogLine
from workers.services.runs import progress, waiting
from workers.services.runs import views as run_views
from workers.services.runs.logs import LogReader
from workers.services.runs.progress import ProgressView
from workers.services.runs.views import RunView
from workers.services.system import System

# Seconds: between two looks at the record, also where the log has just said something, for then a status follows; and
# until a person is told that no worker has taken the run.
_LOOK = 0.25
_LOOK_SOON = 0.05
_SOON = 1.0
_LOOK_FOR_ENTRY = 0.02
_PATIENCE = 10.0
_ASK_WHY = 1.0
_ASK_HOW_FAR = 1.0
_REMEMBERED = 1000  # lines of the log: more than an error has

_WORDS = {
    RunStatus.PLANNING: "planning",
    RunStatus.APPLYING: "applying",
    RunStatus.APPLY_PENDING: "planned: waiting for a confirmation",
}


def is_over(run: RunView) -> bool:
    """Whether nothing more will happen to the run."""
    return run.status.is_over


def waits_or_is_over(run: RunView) -> bool:
    """Whether the run is over, or waits for a decision."""
    return run.status.is_over or run.status is RunStatus.APPLY_PENDING


class Progress(AbstractContextManager["Progress"]):
    """Shows a run's log and where the run stands, on stdout, or on stderr where stdout is kept for JSON.

    On a terminal the last status stays below the log, beside a spinner; elsewhere each is a line of its own, once.
    ``run``: how it was last seen. ``told``: the last lines of its log that were shown.
    """

    def __init__(self, *, errors: bool = False) -> None:
        self.run: RunView | None = None
        self.told: deque[str] = deque(maxlen=_REMEMBERED)
        self._errors = errors
        self._console = console(errors=errors)
        self._live: Live | None = None
        self._status = ""

    def __exit__(self, *_: object) -> None:
        self.pause()

    @property
    def is_terminal(self) -> bool:
        """Whether a person looks at it."""
        return self._console.is_terminal

    def status(self, words: str) -> None:
        """Show where the run stands; a repeated text is not shown again."""
        if words == self._status:
            return
        self._status = words
        if not self.is_terminal:
            say(words, errors=self._errors)
            return
        spinner = Spinner("dots", Text(clean(words), style="cyan"))
        if self._live is None:
            self._live = Live(spinner, console=self._console, transient=True, refresh_per_second=8)
            self._live.start()
        else:
            self._live.update(spinner)

    def note(self, words: str, style: str = "") -> None:
        """Print something that stays on the screen."""
        say(words, style=style, errors=self._errors)

    def pause(self) -> None:
        """Clear the status line, until the next status."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._status = ""


@dataclass
class Follower:
    """Follows one run from where the last look ended; of its log, the lines that are ``wanted``.

    ``before_apply`` is called with the run before each line of its apply.
    """

    system: System
    run_id: str
    progress: Progress
    wanted: Callable[[LogLine], bool] = lambda _: True
    before_apply: Callable[[RunView], None] = lambda _: None
    _log: LogReader | None = None
    _why: str = ""
    _asked: float = 0.0
    _come: ProgressView | None = None
    _heard: float = 0.0

    def until_entered(self, patience: float | None = None) -> RunView | None:
        """Wait until a worker has entered the run; None after ``patience`` seconds.

        Raises what its task raised where it was refused.
        """
        started = time.monotonic()
        told = False
        while True:
            try:
                return run_views.one(self.system.database, self.run_id)
            except UnknownRun:
                self.system.celery.AsyncResult(self.run_id).maybe_throw()
            waited = time.monotonic() - started
            if patience is not None and waited > patience:
                return None
            if waited > 1:
                self.progress.status("waiting for a worker to take the run")
            if waited > _PATIENCE and not told:
                self.progress.note("No worker has taken the run yet: see `terraslot doctor`.", "yellow")
                told = True
            time.sleep(_LOOK_FOR_ENTRY if waited < 1 else _LOOK)

    def until(self, done: Callable[[RunView], bool]) -> RunView:
        """Show the log and the statuses until ``done``; return the run as it is then."""
        run = run_views.one(self.system.database, self.run_id)
        finished = done(run)
        while True:
            self._log = self._log or LogReader(self.system, run)
            lines = self._log.read(block=0 if finished else self._pause())
            run = self.progress.run = run_views.one(self.system.database, self.run_id)
            if lines:
                self._heard = time.monotonic()
            if not run.status.is_over:
                self.progress.status(self._standing(run))
            for line in filter(self.wanted, lines):
                self._show(line, run)
            if finished and not lines:
                self.progress.pause()
                return run
            # Lines are written before the status changes: the last ones of a finished run are there at the next look.
            finished = done(run)

    def _pause(self) -> float:
        return _LOOK_SOON if time.monotonic() - self._heard < _SOON else _LOOK

    def _show(self, line: LogLine, run: RunView) -> None:
        if line.phase == Phase.APPLY:
            self.before_apply(run)
        self.progress.note(line.text)
        self.progress.told.append(line.text)

    def _standing(self, run: RunView) -> str:
        pending = run.status is RunStatus.PENDING
        words = self._why_pending(run) if pending else f"{_WORDS[run.status]} on {run.agent}, slot {run.slot}"
        if self.progress.is_terminal and run.status in EXECUTING and (far := self._how_far(run)):
            words = f"{_WORDS[run.status]} {far}"  # in a log every resource would be a line
        return f"{run.workspace}: {words}{' (cancelling)' if run.cancel_requested else ''}"

    def _how_far(self, run: RunView) -> str:
        if time.monotonic() - self._asked > _ASK_HOW_FAR:
            self._asked = time.monotonic()
            self._come = progress.live(self.system, run)
        same = self._come is not None and self._come.phase is EXECUTING[run.status]
        return brief(self._come, self.system.now()) if self._come and same else ""

    def _why_pending(self, run: RunView) -> str:
        # In a log every place that a run takes would be a line.
        if time.monotonic() - self._asked > (_ASK_WHY if self.progress.is_terminal else _PATIENCE):
            self._asked = time.monotonic()
            self._why = waiting.reasons(self.system, (run.run_id,)).get(run.run_id, "its turn has come")
        return self._why
