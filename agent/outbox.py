"""The outbox of reports. The end of a phase is on disk until the slot map shows that its report was taken.

A report that is only sent can be lost with the broker, with the agent's process, or with its reader. So it is sent
again while a heartbeat says that its lease still runs under its token; taking it twice does no harm. A restarted agent
finds here the tokens that are finished and not reported.
"""

import hashlib
import json
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.backoff import EqualJitterBackoff
from structlog.typing import FilteringBoundLogger

from agent.files import read_regular, write_atomically
from agent.summary import parsed
from agent.terraform import bounded
from workers.protocol.kinds import RunKind
from workers.protocol.leases import Lease, SlotState
from workers.protocol.messages import MAX_ERROR, PhaseFinished, Report
from workers.slots.state_parcel import StateParcel

REPEAT_AFTER = 3.0  # seconds: the control plane takes a report within one
_RETRY = EqualJitterBackoff(cap=1.0, base=1.0)  # seconds; agents that one outage has silenced don't return together


@dataclass(slots=True)
class _Kept:
    report: PhaseFinished
    lease: Lease
    advice: Sequence[str] = ()
    posted: bool = False
    sent_at: float = 0.0
    queued: bool = False


# Sends a report, for the first time or again. May raise, which means: try again.
Send = Callable[[Report, bool], None]


class Outbox:
    """The reports of one agent; safe from any thread."""

    def __init__(
        self, directory: Path, send: Send, logger: FilteringBoundLogger, parcel: Callable[[str], StateParcel]
    ) -> None:
        """Take the directory of what is kept, how a report is sent, and how the state of a run is."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._parcel = parcel
        self._directory = directory
        self._send = send
        self._logger = logger
        self._lock = threading.Lock()
        self._outbox: queue.Queue[Report | None] = queue.Queue()
        self._kept = {kept.lease.token: kept for kept in self._read()}
        self._thread = threading.Thread(target=self._work, name="reports", daemon=True)
        self._thread.start()

    def keep(self, report: PhaseFinished, lease: Lease, state: str | None = None, advice: Sequence[str] = ()) -> None:
        """Put the report of a phase's end on disk; :meth:`post` sends it, and it is repeated from then on.

        So that is the first thing to do once an outcome is known: an agent that is killed later still reports it.
        ``state``: the one that Terraform could not save, encrypted; it is sent before the report. ``advice``: what the
        report's error says to do about it, and what it says instead where the state can't be sent.
        """
        kept = _Kept(report, lease, advice)
        if state is not None:
            self._store(report, self._state_path(lease.token), state)
        # Without a disk the report is lost only with the process.
        self._store(report, self._path(lease.token), json.dumps(_stored(kept)))
        with self._lock:
            self._kept[lease.token] = kept

    def post(self, report: Report) -> None:
        """Send a report from another thread, as soon as the broker can be reached."""
        with self._lock:
            if isinstance(report, PhaseFinished) and (kept := self._kept.get(report.token)):
                if kept.queued:
                    return
                kept.posted = kept.queued = True
        self._outbox.put(report)

    def tokens(self) -> list[str]:
        """Return the tokens of phases that are finished and not known to be reported."""
        with self._lock:
            return list(self._kept)

    def leases(self) -> list[Lease]:
        """Return their leases."""
        with self._lock:
            return [kept.lease for kept in self._kept.values()]

    def settle(self, asked: Sequence[str], repeat: Sequence[str]) -> None:
        """Use a heartbeat's reply: of the tokens asked about, the reports of those to ``repeat`` were not taken yet."""
        for token in asked:
            with self._lock:
                kept = self._kept.get(token)
            if kept is None:
                continue
            if token not in repeat:
                with self._lock:
                    self._kept.pop(token, None)
                self._path(token).unlink(missing_ok=True)
                self._state_path(token).unlink(missing_ok=True)
            elif kept.posted and time.monotonic() - kept.sent_at > REPEAT_AFTER:
                self.post(kept.report)

    def flush(self, patience: float) -> None:
        """Wait until everything posted was sent, for at most ``patience`` seconds; nothing can be posted after."""
        self._outbox.put(None)
        self._thread.join(max(0.0, patience))

    def _work(self) -> None:
        while (report := self._outbox.get()) is not None:
            while not self._try(report):
                time.sleep(_RETRY.compute(0))

    def _try(self, report: Report) -> bool:
        kept = self._kept.get(report.token) if isinstance(report, PhaseFinished) else None
        try:
            sent = self._with_state(report, kept) if isinstance(report, PhaseFinished) else report
            self._send(sent, kept is not None and kept.sent_at > 0)
        except Exception as error:  # noqa: BLE001 - no error of a connection may end this thread
            self._logger.warning("report not sent, trying again", type=report.type, error=str(error))
            return False
        with self._lock:
            if isinstance(report, PhaseFinished) and (kept := self._kept.get(report.token)):
                kept.sent_at, kept.queued = time.monotonic(), False
        return True

    def _with_state(self, report: PhaseFinished, kept: _Kept | None) -> PhaseFinished:
        """Send the state that a report speaks of, before it; return the report, which says where there is none."""
        if report.rescued is None or not report.rescued.sent:
            return report
        parcel = self._parcel(report.run)
        if parcel.prolong():
            return report
        try:
            parcel.put(read_regular(self._state_path(report.token)).decode("ascii"))
        except (OSError, ValueError) as error:
            self._logger.warning(
                "state that was not saved is not sent", run=report.run, phase=report.phase.value, error=str(error)
            )
            rescued = report.rescued.model_copy(update={"sent": False})
            return report.model_copy(update={"rescued": rescued, "error": _of_unsent(report, kept)})
        return report

    def _store(self, report: PhaseFinished, path: Path, content: str) -> None:
        try:
            write_atomically(path, content)
        except OSError as error:
            self._logger.warning(
                "report not stored", run=report.run, phase=report.phase.value, path=str(path), error=str(error)
            )

    def _path(self, token: str) -> Path:
        return self._directory / f"{hashlib.sha256(token.encode()).hexdigest()[:32]}.json"

    def _state_path(self, token: str) -> Path:
        return self._path(token).with_suffix(".state")

    def _read(self) -> list[_Kept]:
        found = []
        for path in sorted(self._directory.glob("*.json")):
            try:
                found.append(_kept(parsed(read_regular(path))))
            except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:  # a configuration wrote it
                self._logger.warning("stored report can't be read, deleted", path=str(path), error=str(error))
                with suppress(OSError):
                    path.unlink()
        return found


def _of_unsent(report: PhaseFinished, kept: _Kept | None) -> str | None:
    """Return the error of a report whose state can't be sent."""
    if kept is None or not kept.advice:
        return report.error
    told, instead = kept.advice
    text = (report.error or "").removesuffix(told)
    return bounded(f"{text.rstrip()}\n\n{instead}".lstrip(), MAX_ERROR)


def _stored(kept: _Kept) -> dict[str, Any]:
    lease = kept.lease
    of_lease = {"kind": lease.kind, "slot": lease.slot, "since": lease.since}
    return {"report": kept.report.wire(), "lease": of_lease, "advice": [*kept.advice]}


def _kept(content: dict[str, Any]) -> _Kept:
    report, found = PhaseFinished.model_validate(content["report"]), content["lease"]
    kind, slot, since = RunKind(found["kind"]), found["slot"], found["since"]
    lease = Lease(report.run, kind, report.agent, slot, report.token, SlotState.RUNNING, since, redeemed=True)
    return _Kept(report, lease, tuple(map(str, content.get("advice", ()))), posted=True)
