"""The apply that executes, on disk: Terraform outlives an agent that dies, and its next process goes on with it.

The next process finds the order here, the child on record for its run, and what that has printed. It waits for the end
of the apply and reports it as if nothing had been. Whether that is still wanted, the slot map decides: Terraform gets
its one SIGINT where the lease is gone.

One agent executes one apply at a time, so that one file is enough. It goes once the report is on disk.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.apply_messages import is_applied
from agent.children import ChildRecords
from agent.command_output import DIRECTORY, CommandOutput
from agent.execution import LASTING, Execution, StopCause
from agent.files import read_regular, write_atomically
from agent.process import Adopted
from workers.protocol.agent_directory import APPLY
from workers.protocol.kinds import Phase
from workers.protocol.leases import APPLY_SLOT
from workers.protocol.messages import Order


class Applying(BaseModel):
    """An apply under way. ``started_at``: seconds since the epoch; ``code``: how Terraform ended, once it has."""

    model_config = ConfigDict(frozen=True)

    order: Order
    started_at: float
    commit: str | None = None
    cause: StopCause | None = None
    ended: bool = False
    code: int | None = None


class ApplyRecord:
    """The record of one agent; safe from any thread. A full disk delays it, never the apply."""

    def __init__(self, work_dir: Path) -> None:
        self._path = work_dir / APPLY
        self._lock = threading.Lock()

    def write(self, execution: Execution) -> None:
        """Put what is known of an apply on disk, unless it is over."""
        with self._lock:
            if execution.over:
                return
            try:
                write_atomically(self._path, _applying(execution).model_dump_json(exclude_defaults=True, by_alias=True))
            except OSError as error:
                execution.logger.warning("apply not put on record", error=str(error))

    def remove(self, execution: Execution | None = None) -> None:
        """Forget what is on record; ``execution`` is over, and is not put there again."""
        with self._lock, suppress(OSError):
            if execution is not None:
                execution.over = True
            self._path.unlink(missing_ok=True)

    def read(self) -> Applying | None:
        """Return the apply that a previous process of this agent has begun; None if there is none, or none to read."""
        with suppress(OSError, ValidationError):
            found = Applying.model_validate_json(read_regular(self._path))
            if found.order.phase is Phase.APPLY and found.order.slot == APPLY_SLOT:
                return found
        return None


def _applying(execution: Execution) -> Applying:
    return Applying(
        order=execution.order,
        started_at=execution.started_at,
        commit=execution.commit,
        cause=execution.cause,
        ended=execution.ended is not None,
        code=execution.ended[0] if execution.ended else None,
    )


def left_by(applying: Applying, directory: Path, records: ChildRecords) -> Adopted | None:
    """Return the Terraform of an apply whose agent has died; None if that had not started any."""
    record = None if applying.ended else records.of_run(applying.order.run)
    if record is None and not applying.ended:
        return None
    try:
        output = CommandOutput(directory / DIRECTORY, LASTING, again=True)
    except OSError:
        return None
    return Adopted(record, records=records, output=output, success=is_applied, code=applying.code)
