"""One phase that executes: its order, its commands, and the cause of its stop.

The first cause of a stop decides the outcome. A stop interrupts the running command once and prevents the next one;
SIGKILL follows where a time for it was given. Stopping is safe from any thread and any number of times.
"""

from __future__ import annotations

import math
import os
import pwd
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from structlog.typing import FilteringBoundLogger

from agent.apply_messages import ApplyMessages
from agent.children import ChildRecords
from agent.command_output import DIRECTORY, CommandOutput
from agent.files import relative_to
from agent.output import Excerpt, Lines, LogWriter
from agent.process import Adopted, Child
from agent.progress import PhaseProgress
from workers.protocol.kinds import FailureReason
from workers.protocol.leases import Lease, SlotState
from workers.protocol.messages import MAX_ERROR, Order, PhaseFinished, PhaseStarted, Report

R = TypeVar("R", PhaseStarted, PhaseFinished)

LASTING = "lasting"  # names the output of the command that the agent's next process goes on with


class StopCause(StrEnum):
    """Why a phase ends before its time."""

    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    DROPPED = "dropped"  # the lease is no longer this agent's
    SHUTDOWN = "shutdown"


class Stopped(Exception):
    """The phase was stopped; its processes are gone. ``text`` is what Terraform said about it."""

    def __init__(self, cause: StopCause, text: str | None = None) -> None:
        super().__init__(cause.value)
        self.cause = cause
        self.text = text


class PhaseFailed(Exception):
    """The phase can't be completed, for a reason and in words that the run's record will hold."""

    def __init__(self, reason: FailureReason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


def locks_as() -> str:
    """Return the user and the host that Terraform names in a lock that it takes here."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = os.environ.get("USER", "")
    return f"{user}@{socket.gethostname()}"


def unavailable(sentence: str) -> PhaseFailed:
    """Return the failure of a source; the sentence names it and says what to do."""
    return PhaseFailed(FailureReason.SOURCE_UNAVAILABLE, sentence)


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that ended: its exit code, the clean lines it wrote to stderr, and the file with its stdout if kept.

    ``code`` is None where the agent was started again meanwhile, and nobody saw how it ended.
    """

    code: int | None
    errors: list[str]
    stdout: Path


@dataclass(eq=False, repr=False)
class Execution:
    """One phase of one run in one slot. ``started_at`` is seconds since the epoch; ``post`` sends a report.

    ``left``: the lasting command that a previous process of this agent has started for this phase. ``changed`` is told
    when what a next process would need to know has changed.
    """

    order: Order
    pool: str
    agent: str
    directory: Path
    records: ChildRecords
    log: LogWriter
    post: Callable[[Report], None]
    logger: FilteringBoundLogger
    left: Adopted | None = None
    changed: Callable[[Execution], None] = lambda _: None
    started_at: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.log.relative = relative_to(self.directory, self.source_tree)
        self.redeemed = self.left is not None
        self.remarks: list[str] = []  # lines of the log that wait for the start of the next command
        self.commit = self.order.commit
        self.program: str | None = None  # which Terraform of which version, once that is known
        self.cause: StopCause | None = None
        self.over = False
        self.ended: tuple[int | None] | None = None  # the lasting command's exit code, once it has ended
        self.findings: dict[str, Any] = {}  # of the state: fields of the report of the phase's end
        self.progress = PhaseProgress(self.started_at, self.log.shown)
        self.rescued: str | None = None  # the state that Terraform could not save, encrypted
        self.advice: tuple[str, ...] = ()  # about that state, as the error has it; and instead, if it can't be sent
        self._reported = self.redeemed
        self._lock = threading.Lock()
        self._child: Child | None = self.left
        self._beside, self._commands = False, 0
        self._deadline = time.monotonic() + self.order.timeout - max(0.0, time.time() - self.started_at)
        self._kill_at = math.inf

    @property
    def source_tree(self) -> Path:
        """Where the run's copy of its source is."""
        return self.directory / "source"

    @property
    def lease(self) -> Lease:
        """The lease that this phase was given, as the slot map should have it."""
        order, since = self.order, self.started_at
        return Lease(
            order.run, order.kind, self.agent, order.slot, order.token, SlotState.RUNNING, since, redeemed=self.redeemed
        )

    def report(self, message: type[R], **facts: Any) -> R:
        """Return a report about this phase."""
        order = self.order
        about: dict[str, Any] = {"run": order.run, "token": order.token, "phase": order.phase}
        about |= {"commit": self.commit, "program": self.program}
        found = self.findings if message is PhaseFinished else {}
        return message(pool=self.pool, agent=self.agent, **about, **found, **facts)

    def resolved(self, commit: str) -> None:
        """Report the commit that the source's ref means in this run."""
        if commit != self.commit:
            self.commit = commit
            self._report_started()

    def _report_started(self) -> None:
        self._reported = True
        self.logger.info("started", commit=self.commit)
        self.report_started()

    def report_started(self, **facts: Any) -> None:
        """Report the start of the phase, with what is known of it by now; may be repeated."""
        self.post(self.report(PhaseStarted, locks_as=locks_as(), clock=self.started_at, **facts))

    def beside(self) -> Execution:
        """Return what executes commands beside those of this phase, in its directory, and reports nothing.

        Where memory is short, the kernel ends these before the apply, unless it ends whole containers.
        """
        other = replace(self, post=lambda _: None, left=None, changed=lambda _: None)
        other._reported = other._beside = True
        return other

    def stop(self, cause: StopCause, *, kill_in: float | None = None) -> None:
        """Interrupt the running command and start no other; kill it in ``kill_in`` seconds, at once if that is 0."""
        with self._lock:
            self.cause = self.cause or cause
            if kill_in is not None:
                self._kill_at = min(self._kill_at, time.monotonic() + kill_in)
            child = self._child
        self.changed(self)
        if child is not None and kill_in == 0:
            child.kill()
        elif child is not None:
            child.interrupt()

    def check(self) -> None:
        """Raise :class:`Stopped` if the phase is to end. Called wherever something long is done without a command."""
        self._watch_time()
        if self.cause is not None:
            raise Stopped(self.cause)

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        keep_stdout: int | None = None,
        title: str | None = None,
        lasting: bool = False,
        messages: ApplyMessages | None = None,
        even_if_stopped: bool = False,
    ) -> Finished:
        """Run one command to its end, its output going to the log; or its stdout to a file of ``keep_stdout`` bytes.

        ``title`` is a line of the log before its output, which costs the start of the command no time. ``lasting``: the
        agent's next process goes on with it. ``messages``: what reads its stdout, and shows it.

        Raises :class:`Stopped` instead of starting it when the phase is to end, and ``OSError`` when it can't start.
        """
        if lasting and self.left is not None:
            self.log.write("The agent was started again: Terraform went on meanwhile.")
            return self._finish(self.left, messages, lasting=True)
        with self._lock:
            if self.cause is not None and not even_if_stopped:
                raise Stopped(self.cause)
            output = CommandOutput(
                self.directory / DIRECTORY, self._next_name(lasting), keep_stdout=keep_stdout, resumable=lasting
            )
            run = self.order.run if lasting else ""  # the next process goes on with this one, and no other beside it
            child = self._child = Child(argv, cwd=cwd, env=env, records=self.records, run=run, output=output)
        if self._beside:
            child.end_first()
        # After the first command was started: sending a report takes time from this thread.
        if not self._reported:
            self._report_started()
        while self.remarks:
            self.log.write(self.remarks.pop(0))
        if title is not None:
            self.progress.begin(title.removeprefix("$ terraform "))
            self.log.write(title)
        return self._finish(child, messages, lasting=lasting)

    def _next_name(self, lasting: bool) -> str:
        self._commands += 1
        return LASTING if lasting else f"{'beside' if self._beside else self.order.phase}-{self._commands}"

    def _finish(self, child: Child, messages: ApplyMessages | None, *, lasting: bool) -> Finished:
        excerpt = Excerpt(2 * MAX_ERROR)
        if messages and child is self.left:
            self._read_again(child, messages, excerpt)
        output = self.log.stream()
        errors = self.log.stream(also=excerpt.add)
        stdout = messages.shown_by(output.feed, errors.feed) if messages else output.feed
        try:
            code = child.finish(stdout, errors.feed, self._watch_time, self._note_end if lasting else None)
        finally:
            with self._lock:
                self._child = None
        if messages:
            messages.end()
        output.end()
        errors.end()
        return Finished(code, excerpt.lines, child.output.stdout)

    def _read_again(self, child: Child, messages: ApplyMessages, excerpt: Excerpt) -> None:
        """Take what a previous process of this agent has read and shown: what it told, and its errors."""
        errors = Lines(lambda text: excerpt.add(self.log.shown(text)), self.log.mask.longest)
        child.output.pass_on_again(messages.shown_by(lambda _: None, errors.feed), errors.feed)
        errors.end()

    def _note_end(self, code: int | None) -> None:
        self.ended = (code,)
        self.changed(self)

    def _watch_time(self) -> None:
        now = time.monotonic()
        if now >= self._deadline:
            self._deadline = math.inf
            self.logger.warning("the phase timed out", seconds=self.order.timeout)
            self.stop(StopCause.TIMED_OUT, kill_in=self.order.interrupt_grace)
        if now >= self._kill_at and (child := self._child) is not None:
            child.kill()
