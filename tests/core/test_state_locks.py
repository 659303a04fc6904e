"""Whose lock it is: certain, or not said."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from workers.core.lifecycle import EventDetail, RunEvent, RunNote, RunStatus
from workers.core.state_locks import Executed, dead_holders, executed, holder, sentence
from workers.protocol.errors import InvalidRequest
from workers.protocol.states import MAX_PACKED, StateLock, StateStep, lock_of, pack, unpack

NOON = 1_795_694_400.0


@dataclass
class Happened:
    seconds: float
    event: str
    status: RunStatus
    detail: EventDetail | None = field(default=None)

    @property
    def at(self) -> datetime:
        return datetime.fromtimestamp(NOON + self.seconds, UTC)


def started(seconds: float, note: RunNote, status: RunStatus, who: str = "root@vm") -> Happened:
    return Happened(seconds, note, status, {"agent": "pool-1", "locks_as": who, "clock": NOON + seconds - 5})


def lock(seconds: float, who: str = "root@vm") -> StateLock:
    created = datetime.fromtimestamp(NOON + seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.25 +0000 UTC")
    return StateLock(id="1", who=who, created=created, operation="OperationTypeApply")


LIFE = [
    Happened(0, RunNote.SUBMITTED, RunStatus.PENDING),
    Happened(1, RunEvent.DISPATCHED, RunStatus.PLANNING),
    started(10, RunNote.PLAN_STARTED, RunStatus.PLANNING),
    Happened(20, RunEvent.PLANNED, RunStatus.APPLY_PENDING),
    Happened(30, RunEvent.CONFIRMED, RunStatus.APPLYING),
    started(40, RunNote.APPLY_STARTED, RunStatus.APPLYING),
]
LOST = [*LIFE, Happened(100, RunEvent.FAILED, RunStatus.FAILED)]


@pytest.mark.parametrize(
    ("taken", "phase"),
    [(4, None), (6, RunStatus.PLANNING), (25, None), (36, RunStatus.APPLYING), (99, RunStatus.APPLYING), (101, None)],
)
def test_on_a_shared_machine_a_lock_is_that_of_the_phase_that_executed_when_it_was_taken(
    taken: float, phase: RunStatus | None
) -> None:
    found = holder(lock(taken), list(executed("r", LOST)))
    assert (found and found.status) == phase


def test_a_phase_that_is_not_over_holds_what_was_taken_since() -> None:
    found = holder(lock(5_000), list(executed("r", LIFE)))
    assert found is not None
    assert (found.until, found.silent) == (None, False)


def test_a_lock_of_a_pod_is_that_of_its_agent_whatever_the_control_planes_clock_says() -> None:
    name = "pool-" + "x" * 70
    who = f"root@{name[:63]}"
    pod = [Executed("r", RunStatus.APPLYING, name, who, NOON, NOON + 10)]
    assert holder(lock(600, who), pod) == pod[0]
    assert holder(lock(600, "root@vm"), pod) is None
    assert holder(lock(-1, who), pod) is None


def test_without_a_time_or_a_start_nobody_is_named() -> None:
    assert holder(StateLock(id="1", who="root@vm", created="today"), list(executed("r", LOST))) is None
    untold = [Happened(40, RunNote.APPLY_STARTED, RunStatus.APPLYING, {"agent": "pool-1"})]
    assert list(executed("r", untold)) == []


def test_a_phase_whose_end_nobody_reported_is_told_apart() -> None:
    late = [*LIFE, Happened(90, RunNote.END_NOT_REPORTED, RunStatus.APPLYING), LOST[-1]]
    found = holder(lock(50), list(executed("r", late)))
    assert found is not None
    assert (found.silent, found.until) == (True, NOON + 100)


def spans(*runs: list[Happened], gone: bool = False) -> list[tuple[float, float]]:
    phases = [phase for number, run in enumerate(runs) for phase in executed(f"r{number}", run)]
    return [(each.since - NOON, each.until - NOON) for each in dead_holders(phases, gone=lambda _: gone)]


def test_nobody_who_may_live_is_told_as_dead() -> None:
    late = [*LIFE, Happened(90, RunNote.END_NOT_REPORTED, RunStatus.APPLYING), LOST[-1]]
    of_its_plan = (5, 15)  # by its agent's clock, which is 5 s behind, as far as one can tell
    assert spans(LIFE) == [of_its_plan]
    assert spans(late) == [of_its_plan]
    assert spans(late, gone=True) == spans(LOST) == [of_its_plan, (35, 95)]


def test_what_another_phase_of_the_same_name_may_have_locked_since_is_no_dead_ones() -> None:
    second = started(70, RunNote.APPLY_STARTED, RunStatus.APPLYING)
    assert spans(LOST, [second]) == [(5, 15), (35, 65)]
    elsewhere = started(70, RunNote.APPLY_STARTED, RunStatus.APPLYING, who="root@other")
    assert spans(LOST, [elsewhere]) == [(5, 15), (35, 95)]


def test_a_dead_one_holds_what_it_has_locked_itself() -> None:
    (_, dead) = dead_holders(list(executed("r", LOST)), gone=lambda _: False)
    assert [dead.holds(lock(seconds)) for seconds in (34, 36, 94, 96)] == [False, True, True, False]
    assert not dead.holds(lock(50, who="ana@laptop"))
    assert not dead.holds(StateLock(id="1", who="root@vm", created="today"))


def test_what_is_said_names_who_since_when_and_the_run() -> None:
    found = holder(lock(50), list(executed("r", LOST)))
    said = sentence(lock(50), found, alive=False)
    assert "locked by root@vm since 2026-11-26 12:00:50.25 +0000 UTC" in said
    assert "That was the apply of run r, which is over" in said
    assert "wait for it" in sentence(lock(50), found, alive=True)
    assert "No run of this system is known to hold that lock" in sentence(lock(50), None, alive=True)


@pytest.mark.parametrize("name", ["", "-force", "a\nb", " ", "x" * 300, "\x1b[2J"])
def test_what_can_not_be_a_locks_id_is_none(name: str) -> None:
    with pytest.raises(ValidationError):
        StateLock(id=name)


def test_a_lock_is_read_from_what_terraform_says_after_its_info() -> None:
    detail = "ID: forged\nLock Info:\n  ID:        9\n  Who:       a@b\n  Created:   2026-11-26 12:00:00.5 +0000 UTC\n"
    found = StateLock.model_validate(lock_of(detail))
    assert (found.id, found.who, found.at) == ("9", "a@b", NOON + 0.5)
    assert StateLock(id="9", created="2026-11-26T12:00:00Z").at == NOON


@pytest.mark.parametrize("what", [{}, {"push": "r", "unlock": "l"}])
def test_a_step_does_one_thing(what: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="one of push and unlock"):
        StateStep(**what)


def test_a_state_is_packed_within_its_bound_and_unpacked_within_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pack([b"a" * 1000, b"b"])
    assert packed is not None
    assert unpack(packed) == b"a" * 1000 + b"b"
    monkeypatch.setattr("workers.protocol.states.MAX_PACKED", 10)
    assert pack([bytes(range(256))]) is None
    monkeypatch.setattr("workers.protocol.states.MAX_STATE", 100)
    for hostile in (packed, packed[:-1], b"no state"):
        with pytest.raises(InvalidRequest):
            unpack(hostile)
    assert MAX_PACKED > 10
