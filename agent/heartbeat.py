"""The agent's heartbeat: it registers, says what it executes, and does what the slot map's answer asks of it.

An error of one heartbeat is logged, and the next one comes: the thread ends only with the agent. An unreachable Redis
changes nothing of what executes here.
"""

import threading
import time
from dataclasses import dataclass
from functools import partial

from redis.backoff import EqualJitterBackoff
from structlog.typing import FilteringBoundLogger

from agent.execution import Execution, StopCause
from agent.files import RunDirectories
from agent.outbox import Outbox
from agent.probe import LivenessFile
from agent.progress import ProgressTeller
from agent.settings import AgentSettings
from agent.slot_manager import SlotManager
from workers.protocol.leases import CancelMode, HeartbeatReply, Lease, SlotState
from workers.protocol.messages import AgentRegistered
from workers.slots.slot_map import SlotMap

# Agents that one outage has silenced together don't come back together.
_RETRY = EqualJitterBackoff(cap=10.0, base=0.75)
_LONGEST_AFTER = 5  # failures
# A busy agent sends one at least every second, and a cancel travels with it: the rest is the call itself.
BUSY_SECONDS = 0.75


def pause_after(failures: int) -> float:
    """Return the seconds until the next heartbeat after this number of failed ones, a little different each time."""
    return _RETRY.compute(min(failures, _LONGEST_AFTER))


@dataclass(eq=False, repr=False)
class Heartbeat:
    """The heartbeat of one agent: every ``heartbeat_seconds`` while it is idle, else less than a second apart."""

    slot_map: SlotMap
    settings: AgentSettings
    instance_id: str
    slots: SlotManager
    reports: Outbox
    directories: RunDirectories
    liveness: LivenessFile
    progress: ProgressTeller
    logger: FilteringBoundLogger

    def __post_init__(self) -> None:
        self._reserved: tuple[Lease, ...] = ()
        self._brought_back: set[str] = set()
        self._registered = False
        self._draining = False
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Register, then send heartbeats until :meth:`end`."""
        self._thread.start()

    def end(self) -> None:
        """Send no more."""
        self._ended.set()

    def beat(self) -> None:
        """Send one heartbeat. Raises what the slot map raises."""
        with self._lock:
            if not self._registered:
                self._register()
            # Executing first: a token moves to the reports before it leaves its slot, so it is never in neither.
            executing = [execution.order.token for execution in self.slots.executing()]
            reporting = self.reports.tokens()
            reply = self.slot_map.heartbeat(self.settings.agent, self.instance_id, executing, reporting)
            if not reply.registered:
                self._register()
                return
            self._follow(reply)
            self.reports.settle(reporting, reply.repeat)
            self._remove_directories()

    def drain(self) -> None:
        """Tell the slot map that this agent takes no further runs. Raises what the slot map raises."""
        with self._lock:
            if self._registered:
                self.slot_map.drain(self.settings.agent)

    def cancel(self, token: str, mode: CancelMode) -> None:
        """End what executes under a token, if anything does."""
        if execution := self.slots.find(token):
            execution.logger.info("cancelling", mode=mode)
            execution.stop(StopCause.CANCELLED, kill_in=0 if mode is CancelMode.KILL else None)

    def _work(self) -> None:
        failing_since: float | None = None
        pause, failures = 0.0, 0
        while not self._ended.wait(pause):
            try:
                self.beat()
                self.progress.tell(self.slots.executing())
            except Exception as error:  # noqa: BLE001 - F8: no error may end the heartbeat
                if failing_since is None:
                    self.logger.warning("the slot map can't be reached: trying again", error=str(error))
                failing_since = failing_since or time.monotonic()
                self._registered = False  # a server that was away may have lost what it was told last
                self.liveness.heartbeat(reached=False)
                failures += 1
                pause = pause_after(failures)
                continue
            if failing_since is not None:
                self.logger.info("the slot map is back", after=round(time.monotonic() - failing_since, 1))
            failing_since, pause, failures = None, 0.0, 0
            self.liveness.heartbeat(reached=True)
            self._rest()

    def _rest(self) -> None:
        """Wait until the next heartbeat is due, in steps: work that makes it due sooner may begin at any time."""
        began = time.monotonic()
        while not self._ended.wait(BUSY_SECONDS / 3):
            self.liveness.heartbeat()
            if time.monotonic() - began >= (BUSY_SECONDS if self._busy() else self.settings.heartbeat_seconds):
                return

    def _busy(self) -> bool:
        return bool(self.slots.executing() or self.reports.tokens() or self.slots.closed)

    def _register(self) -> None:
        executing = [execution.lease for execution in self.slots.executing() if execution.redeemed]
        known = [*executing, *self.reports.leases()]
        runs = {lease.run for lease in known}
        kept = [lease for lease in self._reserved if lease.run not in runs]
        self.slot_map.register(self.settings.agent, self.instance_id, [*known, *kept], draining=self.slots.closed)
        self._registered = True
        self.logger.info("registered", executing=len(executing), kept=len(kept))
        if not self.slots.closed:
            self.reports.post(AgentRegistered(pool=self.settings.pool, agent=self.settings.agent))

    def _follow(self, reply: HeartbeatReply) -> None:
        for token, mode in reply.cancels:
            self.cancel(token, mode)
        for token in reply.drop:
            if (execution := self.slots.find(token)) and execution.redeemed:
                self._bring_back_or_stop(execution)
        if reply.draining != self._draining:
            self._draining = reply.draining
            self.logger.info("draining: no further runs" if reply.draining else "taking runs again")

    def _bring_back_or_stop(self, execution: Execution) -> None:
        """Register again with a lease that the map does not have: lost, or its slot given to another run."""
        if execution.order.token not in self._brought_back:
            self._brought_back.add(execution.order.token)
            self._registered = False
            return
        execution.logger.error("the slot was given to another run: stopping")
        execution.stop(StopCause.DROPPED, kill_in=execution.order.interrupt_grace)

    def _remove_directories(self) -> None:
        """Remove the directories of runs that hold no slot here any more."""
        executing = {execution.order.run for execution in self.slots.executing()}
        kept = self.directories.runs() - executing
        if not kept:
            self._reserved = ()
            return
        record = self.slot_map.agent(self.settings.agent)
        if record is None:
            return
        self._reserved = tuple(lease for lease in record.leases if lease.state is SlotState.RESERVED)
        for run in kept - {lease.run for lease in record.leases}:
            self.logger.info("run directory removed", directory=run)
            self.slots.unless_executing(run, partial(self.directories.set_aside, run))
        self.directories.empty()
