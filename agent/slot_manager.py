"""The agent's three slots and what executes in each. The slot map decides which run may; this refuses all others.

Invariants: a slot executes at most one phase, and nothing starts once the slots are closed.
"""

import threading
from collections.abc import Callable

from agent.execution import Execution
from workers.protocol.kinds import RunKind
from workers.protocol.leases import APPLY_SLOT, SLOTS_PER_AGENT


class SlotManager:
    """The slots of one agent; safe from any thread."""

    def __init__(self) -> None:
        self._slots: list[Execution | None] = [None] * SLOTS_PER_AGENT
        self.closed = False  # whether further phases are refused
        self._changed = threading.Condition()

    def take(self, execution: Execution) -> str | None:
        """Put the execution into its order's slot, or return why it may not start."""
        order = execution.order
        with self._changed:
            if self.closed:
                return "the agent is stopping"
            if order.kind is RunKind.PLAN_AND_APPLY and order.slot != APPLY_SLOT:
                return f"slot {order.slot} is for plans only"
            if self._slots[order.slot] is not None:
                return f"slot {order.slot} still executes another run"
            self._slots[order.slot] = execution
            return None

    def leave(self, execution: Execution) -> None:
        """Free the execution's slot."""
        with self._changed:
            if self._slots[execution.order.slot] is execution:
                self._slots[execution.order.slot] = None
                self._changed.notify_all()

    def executing(self) -> list[Execution]:
        """Return what is under way, by slot."""
        with self._changed:
            return [execution for execution in self._slots if execution is not None]

    def find(self, token: str) -> Execution | None:
        """Return what executes under a token."""
        return next((execution for execution in self.executing() if execution.order.token == token), None)

    def unless_executing(self, run: str, action: Callable[[], None]) -> None:
        """Do something unless a phase of this run executes; none starts meanwhile."""
        with self._changed:
            if all(execution is None or execution.order.run != run for execution in self._slots):
                action()

    def close(self) -> None:
        """Refuse every further phase."""
        with self._changed:
            self.closed = True

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait until nothing executes, for at most ``seconds``; return whether nothing does."""
        with self._changed:
            return self._changed.wait_for(lambda: not any(self._slots), timeout=max(0.0, seconds))
