"""One agent: how it executes an order and a cancel, and how it stops."""

import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from redis.exceptions import RedisError
from structlog.typing import FilteringBoundLogger

from agent.apply_record import Applying, ApplyRecord, left_by
from agent.children import ChildRecords, end_leftovers
from agent.execution import Execution, StopCause
from agent.files import RunDirectories
from agent.heartbeat import Heartbeat
from agent.outbox import Outbox, Send
from agent.output import LogWriter
from agent.phases import Phases, keeps_directory
from agent.prepared import PreparedDirectories
from agent.probe import LivenessFile
from agent.process import Adopted
from agent.programs import find
from agent.progress import ProgressTeller
from agent.settings import AgentSettings
from agent.slot_manager import SlotManager
from agent.terraform_environment import run_environment, terraform_environment
from workers.protocol.agent_directory import CHILDREN, REPORTS
from workers.protocol.errors import Damaged, InvalidRequest
from workers.protocol.kinds import Phase
from workers.protocol.messages import AgentStopped, CancelRequest, Order
from workers.protocol.names import TRACEPARENT, trace_id
from workers.protocol.validation import problems
from workers.protocol.version import instance_id
from workers.slots.connection import connect
from workers.slots.log_stream import RunLog
from workers.slots.slot_map import SlotMap
from workers.slots.state_parcel import StateParcel

M = TypeVar("M", bound=BaseModel)

_NO_HEADERS: Mapping[str, object] = {}
# Seconds. A log that can't be written must not hold the slot; what is kept of it is written by then.
_LOG_SECONDS = 5.0
# A report that the agent stops only speeds up what reconcile sees anyway.
_LAST_REPORT_SECONDS = 5.0
# As the control plane gives the children of a dead local agent: an interrupted apply stores its state in seconds.
_LEFTOVER_GRACE = 60.0


class Agent:
    """Everything of one agent but its Celery worker. ``send`` delivers a report or raises."""

    def __init__(self, settings: AgentSettings, send: Send, logger: FilteringBoundLogger) -> None:
        settings.work_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.settings = settings
        self.logger = logger
        environment = terraform_environment(settings, os.environ, logger)
        programs = find(settings, run_environment(environment, {}))
        self.instance_id = instance_id(uuid.uuid4().hex, programs.known)
        logger.info("programs found", programs=list(map(str, programs.known)))
        self.slots = SlotManager()
        self._redis = connect(settings.redis, settings.credentials)
        self.reports = Outbox(settings.work_dir / REPORTS, send, logger, self._parcel)
        self._slot_map = SlotMap(self._redis, settings.pool)
        self._records = ChildRecords(settings.work_dir / CHILDREN)
        self._directories = RunDirectories(settings.work_dir)
        prepared = PreparedDirectories(
            settings.work_dir, most=settings.init_cache_bytes, seconds=settings.init_cache_seconds
        )
        self._phases = Phases(
            programs,
            environment,
            settings.work_dir,
            prepared,
            settings.secret_dir,
            self._pushed_state,
            settings.git_cache_bytes,
        )
        self.liveness = LivenessFile(settings.work_dir)
        self.heartbeat = Heartbeat(
            self._slot_map,
            settings,
            self.instance_id,
            self.slots,
            self.reports,
            self._directories,
            self.liveness,
            ProgressTeller(self._redis, settings.pool),
            logger,
        )
        self._stopping = threading.Lock()
        self._stopped = False
        self._started = False
        self._apply = ApplyRecord(settings.work_dir)
        self._adopted = self._adopt()

    def start(self) -> None:
        """Register in the slot map once nothing but an apply is left of a previous process; returns at once."""
        if not self._started:
            self._started = True
            threading.Thread(target=self._start, name="start", daemon=True).start()

    def resume(self) -> None:
        """Go on with the apply that a previous process of this agent has begun, if there is one; returns at once.

        The agent registers at once then, before it can take orders: it must be heard.
        """
        if self._adopted is not None:
            threading.Thread(target=self._resume, args=(self._adopted,), name="resume", daemon=True).start()
            self.start()

    def _adopt(self) -> Execution | None:
        """Return the apply that a previous process has begun, in its slot; None if it has ended, or none was begun."""
        applying = self._apply.read()
        left = self._left(applying) if applying else None
        if applying is None or left is None:
            self._apply.remove()
            return None
        execution = self._execution(applying.order, left, applying.started_at)
        execution.commit, execution.cause = applying.commit, applying.cause
        execution.ended = (applying.code,) if applying.ended else None
        self.slots.take(execution)
        return execution

    def _left(self, applying: Applying) -> Adopted | None:
        if applying.order.token in self.reports.tokens():
            return None
        return left_by(applying, self._directories.path(applying.order.run), self._records)

    def _resume(self, execution: Execution) -> None:
        execution.logger.warning("going on with the apply of a previous process of this agent")
        try:
            self._execute(execution)
        finally:
            self.slots.leave(execution)

    def _start(self) -> None:
        kept = self._adopted.left.pid if self._adopted and self._adopted.left else None
        if leftovers := end_leftovers(self._records, min(_LEFTOVER_GRACE, self.settings.grace_seconds), kept):
            self.logger.warning("ended what a previous process of this agent left", pids=leftovers)
        self.heartbeat.start()

    def execute(self, payload: dict[str, Any], headers: Mapping[str, object] = _NO_HEADERS) -> None:
        """Execute an order, if its lease can be redeemed; else nothing happens. ``headers``: what its message says."""
        order = self._valid(Order, payload)
        if order is None:
            return
        order = order.model_copy(update=_for_logs(headers))
        execution = self._execution(order)
        if refusal := self.slots.take(execution):
            execution.logger.warning("order refused", why=refusal)
            return
        try:
            if self._redeem(execution):
                self._execute(execution)
        finally:
            self.slots.leave(execution)

    def _execution(self, order: Order, left: Adopted | None = None, started_at: float | None = None) -> Execution:
        logger = self.logger.bind(
            run=order.run, workspace=order.workspace, slot=order.slot, phase=order.phase.value, attempt=order.attempt,
            **({"trace_id": trace_id(order.trace)} if order.trace else {}),
        )  # fmt: skip
        return Execution(
            order,
            pool=self.settings.pool,
            agent=self.settings.agent,
            directory=self._directories.path(order.run),
            records=self._records,
            log=LogWriter(RunLog(self._redis, self.settings.pool, order.run).append, order.phase, logger),
            post=self.reports.post,
            logger=logger,
            left=left,
            changed=self._apply.write if order.phase is Phase.APPLY else _nothing,
            started_at=started_at or time.time(),
        )

    def cancel(self, payload: dict[str, Any]) -> None:
        """End a phase that executes here; heartbeats repeat the request."""
        if request := self._valid(CancelRequest, payload):
            self.heartbeat.cancel(request.token, request.mode)

    def stop(self) -> None:
        """Take no further orders, let what executes finish, report, and deregister. Returns when that is done.

        Near the end of the grace period what still executes is interrupted, and killed if it does not end.
        """
        with self._stopping:
            if not self._stopped:
                self._stopped = True
                self._stop(time.monotonic() + self.settings.grace_seconds)

    def _stop(self, end: float) -> None:
        interrupt_seconds, report_seconds = last_moments(self.settings.grace_seconds)
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
        self.reports.post(AgentStopped(pool=settings.pool, agent=settings.agent, instance_id=self.instance_id))
        self.reports.flush(min(_LAST_REPORT_SECONDS, end - time.monotonic()))
        self.logger.info("stopped", unreported=len(self.reports.tokens()))

    def _redeem(self, execution: Execution) -> bool:
        order = execution.order
        try:
            execution.redeemed = self._slot_map.redeem(self.settings.agent, order.run, order.token)
        except (RedisError, Damaged) as error:
            # The token may be redeemed or not: nothing may start, and reconcile sees either case.
            execution.logger.warning(
                "lease not redeemed, the slot map can't be reached: nothing is started", error=str(error)
            )
            return False
        if not execution.redeemed:
            execution.logger.info("lease not redeemed, it is gone or was redeemed before: nothing is started")
        return execution.redeemed

    def _execute(self, execution: Execution) -> None:
        execution.changed(execution)
        finished = self._phases.finish(execution)
        if finished is not None:
            execution.logger.info(
                "finished", outcome=finished.outcome, seconds=round(time.time() - execution.started_at, 2)
            )
            # On disk before all else that takes time: what is only in memory is lost with this process.
            self.reports.keep(finished, execution.lease, execution.rescued, execution.advice)
        if execution.order.phase is Phase.APPLY:
            self._apply.remove(execution)
        execution.log.close(_LOG_SECONDS)
        if not keeps_directory(execution.order, finished):
            self._directories.set_aside(execution.order.run)
        if finished is not None:
            # Out of the slot, then sent: the control plane may give the slot to the next run at once.
            self.slots.leave(execution)
            self.reports.post(finished)
        self._directories.empty()

    def _parcel(self, run: str) -> StateParcel:
        return StateParcel(self._redis, self.settings.pool, run)

    def _pushed_state(self, run: str) -> str | None:
        """Return the encrypted state that a run is to push. Raises :class:`InvalidRequest` where Redis is away."""
        try:
            return self._parcel(run).get()
        except RedisError as error:
            raise InvalidRequest(f"The state that is to be pushed can't be read: {error}.") from error

    def _valid(self, message: type[M], payload: dict[str, Any]) -> M | None:
        try:
            return message.model_validate(payload)
        except ValidationError as error:
            # Without values: they may be variables.
            self.logger.warning("invalid message dropped", message=message.__name__, problems=problems(error))
            return None

    def _quietly(self, action: Callable[[], None]) -> None:
        try:
            action()
        except (RedisError, Damaged) as error:
            self.logger.warning("the slot map can't be reached", error=str(error))


def _for_logs(headers: Mapping[str, object]) -> dict[str, Any]:
    """Return what is valid of the headers that say which attempt and trace an order is of."""
    attempt, trace = headers.get("attempt"), headers.get("trace")
    return {
        "attempt": attempt if isinstance(attempt, int) else None,
        "trace": trace if isinstance(trace, str) and TRACEPARENT.fullmatch(trace) else None,
    }


def _nothing(_: Execution) -> None:
    """Keep no record: a plan is made anew."""


def last_moments(grace: float) -> tuple[float, float]:
    """Return how long before the end of a grace period Terraform is interrupted, and killed for the report's sake."""
    return min(120.0, grace / 4), min(10.0, grace / 8)
