"""One agent: what an order and a cancel do here, and how it stops."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from redis.exceptions import RedisError
from structlog.typing import FilteringBoundLogger

from agent.environment import terraform_environment
from agent.execution import Execution, PhaseFailed, StopCause, Stopped
from agent.heartbeat import Heartbeat
from agent.output import LogWriter
from agent.phases import Outcome, Phases
from agent.process import ChildRecords, end_orphans
from agent.reports import Reports
from agent.run_directories import RunDirectories
from agent.settings import AgentSettings
from agent.slot_manager import SlotManager
from agent.terraform import bounded
from workers.core.messages import (
    MAX_ERROR,
    AgentStopped,
    CancelRequest,
    Order,
    PhaseFinished,
    PhaseStarted,
    Report,
)
from workers.core.runs import FailureReason, Phase, RunKind
from workers.slots.connection import connect
from workers.slots.log_stream import RunLog
from workers.slots.slot_map import SlotMap

M = TypeVar("M", bound=BaseModel)

_LOG_SECONDS = 5.0
_GOODBYE_SECONDS = 5.0
_ORPHAN_SECONDS = 60.0


class Agent:
    """Everything of one agent but its Celery worker. ``send`` delivers a report or raises."""

    def __init__(self, settings: AgentSettings, send: Callable[[Report], None], logger: FilteringBoundLogger) -> None:
        settings.work_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.settings = settings
        self.logger = logger
        self.incarnation = uuid.uuid4().hex
        self.slots = SlotManager()
        self.reports = Reports(settings.work_dir / "reports", send, logger)
        self._redis = connect(settings.redis_url, settings.credentials)
        self._slot_map = SlotMap(self._redis, settings.pool)
        self._records = ChildRecords(settings.work_dir / "children")
        self._directories = RunDirectories(settings.work_dir)
        environment = terraform_environment(settings, os.environ, logger)
        self._phases = Phases(settings.terraform_command(), environment, settings.work_dir)
        self.heartbeat = Heartbeat(
            self._slot_map,
            pool=settings.pool,
            agent=settings.agent,
            incarnation=self.incarnation,
            slots=self.slots,
            reports=self.reports,
            directories=self._directories,
            idle_seconds=settings.heartbeat_seconds,
            logger=logger,
        )
        self._stopping = threading.Lock()
        self._stopped = False

    def start(self) -> None:
        """Appear in the slot map, as soon as nothing is left of a former life; returns at once."""
        threading.Thread(target=self._start, name="start", daemon=True).start()

    def _start(self) -> None:
        if orphans := end_orphans(self._records, min(_ORPHAN_SECONDS, self.settings.grace_seconds)):
            self.logger.warning("ended processes that a former life of this agent left", pids=orphans)
        self.heartbeat.start()

    def execute(self, payload: dict[str, Any]) -> None:
        """Execute an order, if its lease can be redeemed; else nothing happens."""
        order = self._valid(Order, payload)
        if order is None:
            return
        logger = self.logger.bind(run=order.run, slot=order.slot, phase=order.phase)
        execution = Execution(
            order,
            agent=self.settings.agent,
            directory=self._directories.path(order.run),
            records=self._records,
            log=LogWriter(RunLog(self._redis, self.settings.pool, order.run), order.phase, logger),
            announce=self._post_started,
            logger=logger,
        )
        if refusal := self.slots.take(execution):
            logger.warning("order refused", why=refusal)
            return
        try:
            if self._redeem(execution):
                self._execute(execution)
        finally:
            self.slots.leave(execution)

    def cancel(self, payload: dict[str, Any]) -> None:
        """End a phase that executes here; the heartbeat will say it again."""
        if request := self._valid(CancelRequest, payload):
            self.heartbeat.cancel(request.token, request.mode)

    def stop(self) -> None:
        """Take nothing more, see everything through that executes, and leave. Returns when nothing is left to do.

        Only near the end of the grace period is anything interrupted, and killed when it does not yield.
        """
        with self._stopping:
            if not self._stopped:
                self._stopped = True
                self._stop(time.monotonic() + self.settings.grace_seconds)

    def _stop(self, end: float) -> None:
        grace = self.settings.grace_seconds
        report_seconds, interrupt_seconds = min(10.0, grace / 8), min(120.0, grace / 4)
        self.slots.close()
        executing = self.slots.executing()
        self.logger.info("stopping: no further runs", executing=[each.order.run for each in executing])
        self._quietly(self.heartbeat.drain)
        if not self.slots.wait_until_idle(end - interrupt_seconds - time.monotonic()):
            for execution in self.slots.executing():
                execution.logger.warning("interrupting: the grace period is nearly over")
                execution.stop(StopCause.SHUTDOWN, kill_in=max(0.1, end - report_seconds - time.monotonic()))
            self.slots.wait_until_idle(end - time.monotonic())
        while self.reports.tokens() and time.monotonic() < end - report_seconds / 4:
            self._quietly(self.heartbeat.beat)
            time.sleep(0.1)
        self.heartbeat.end()
        settings = self.settings
        self.reports.post(AgentStopped(pool=settings.pool, agent=settings.agent, incarnation=self.incarnation))
        self.reports.flush(min(_GOODBYE_SECONDS, end - time.monotonic()))
        self.logger.info("stopped", unreported=len(self.reports.tokens()))

    def _redeem(self, execution: Execution) -> bool:
        order = execution.order
        try:
            execution.redeemed = self._slot_map.redeem(self.settings.agent, order.run, order.token)
        except RedisError as error:
            # Whether the token is redeemed now is not known, so nothing may start; reconcile sees either case.
            execution.logger.warning("the lease can't be redeemed: nothing is started", error=str(error))
            return False
        if not execution.redeemed:
            execution.logger.info("the lease is not there to be redeemed: nothing is started")
        return execution.redeemed

    def _execute(self, execution: Execution) -> None:
        order = execution.order
        execution.logger.info("started")
        self._post_started(execution)
        finished = self._finish(execution)
        execution.log.close(_LOG_SECONDS)
        if not _keeps_directory(order, finished):
            self._directories.remove(order.run)
        if finished is None:
            return
        execution.logger.info(
            "finished", outcome=finished.outcome, seconds=round(time.time() - execution.started_at, 2)
        )
        # On disk, then out of the slot, then sent: whoever reads it may give the slot to the next run at once.
        self.reports.keep(finished, execution.lease)
        self.slots.leave(execution)
        self.reports.post(finished)

    def _finish(self, execution: Execution) -> PhaseFinished | None:
        """Execute the phase and return what is to be reported of it; None if that is not for this agent to say."""
        try:
            outcome = self._phases.execute(execution)
        except Stopped as stopped:
            return self._stopped_report(execution, stopped)
        except PhaseFailed as failed:
            execution.log.write(failed.text.splitlines()[0])
            return self._report(execution, outcome="failed", reason=failed.reason, error=failed.text)
        except Exception:
            execution.logger.exception("the phase failed for a fault of the agent")
            text = "The agent failed to execute the phase: see its own log."
            return self._report(execution, outcome="failed", reason=FailureReason.AGENT_ERROR, error=text)
        return self._success(execution, outcome)

    def _success(self, execution: Execution, outcome: Outcome) -> PhaseFinished:
        return self._report(
            execution,
            outcome="succeeded",
            changed=outcome.changed,
            changes=outcome.changes,
            outputs=outcome.outputs,
        )

    def _stopped_report(self, execution: Execution, stopped: Stopped) -> PhaseFinished | None:
        order = execution.order
        if stopped.cause is StopCause.CANCELLED:
            return self._report(execution, outcome="cancelled", error=stopped.text)
        if stopped.cause is StopCause.TIMED_OUT:
            sentence = f"The {order.phase} took longer than {order.timeout:g} s and was ended."
            return self._failure(execution, FailureReason.TIMED_OUT, sentence, stopped.text)
        if stopped.cause is StopCause.SHUTDOWN and order.phase is Phase.APPLY:
            sentence = "The agent had to stop before the apply was done, and interrupted it."
            return self._failure(execution, FailureReason.AGENT_LOST, sentence, stopped.text)
        # Dropped: somebody else has the word. A plan cut short by the agent's end: it is made anew elsewhere.
        return None

    def _failure(self, execution: Execution, reason: FailureReason, sentence: str, text: str | None) -> PhaseFinished:
        error = bounded(f"{sentence}\n\n{text}" if text else sentence, MAX_ERROR)
        return self._report(execution, outcome="failed", reason=reason, error=error)

    def _report(self, execution: Execution, **facts: Any) -> PhaseFinished:
        order = execution.order
        return PhaseFinished(
            pool=self.settings.pool,
            agent=self.settings.agent,
            run=order.run,
            token=order.token,
            phase=order.phase,
            commit=execution.commit,
            **facts,
        )

    def _post_started(self, execution: Execution) -> None:
        order = execution.order
        self.reports.post(
            PhaseStarted(
                pool=self.settings.pool,
                agent=self.settings.agent,
                run=order.run,
                token=order.token,
                phase=order.phase,
                commit=execution.commit,
            )
        )

    def _valid(self, message: type[M], payload: dict[str, Any]) -> M | None:
        try:
            return message.model_validate(payload)
        except ValidationError as error:
            # The input is not shown: it may hold variables.
            problems = [
                {"where": problem["loc"], "what": problem["msg"]} for problem in error.errors(include_input=False)
            ]
            self.logger.warning(
                "a message that makes no sense was dropped", message=message.__name__, problems=problems
            )
            return None

    def _quietly(self, action: Callable[[], None]) -> None:
        try:
            action()
        except RedisError as error:
            self.logger.warning("the slot map can't be reached", error=str(error))


def _keeps_directory(order: Order, finished: PhaseFinished | None) -> bool:
    """Whether an apply may follow in the same directory."""
    return (
        finished is not None
        and order.phase is Phase.PLAN
        and order.kind is RunKind.PLAN_AND_APPLY
        and finished.outcome == "succeeded"
        and finished.changed
    )
