"""What the outbox keeps on disk, and what it sends where the disk fails."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from agent.outbox import Outbox
from tests.agent.conftest import LOGGER, POOL
from workers.protocol.kinds import FailureReason, Phase, RunKind
from workers.protocol.leases import Lease, SlotState
from workers.protocol.messages import MAX_ERROR, PhaseFinished, Report
from workers.protocol.states import RescuedState
from workers.slots.state_parcel import StateParcel

TOLD, INSTEAD = "It is kept with the run.", "It is kept on agent agent-1 alone, as /states/net."
TOKEN = "a" * 32
NAME = hashlib.sha256(TOKEN.encode()).hexdigest()[:32]
LEASE = Lease("run-1", RunKind.PLAN_AND_APPLY, "agent-1", 0, TOKEN, SlotState.RUNNING, 1.0, redeemed=True)
Outboxes = Callable[[], Outbox]


def report(error: str) -> PhaseFinished:
    return PhaseFinished(
        pool=POOL, agent="agent-1", run="run-1", token=TOKEN, phase=Phase.APPLY, outcome="failed", error=error,
        reason=FailureReason.TERRAFORM_FAILED, rescued=RescuedState(bytes=1, sent=True),
    )  # fmt: skip


@pytest.fixture
def sent() -> list[Report]:
    return []


@pytest.fixture
def outbox(tmp_path: Path, redis_url: str, sent: list[Report]) -> Outboxes:
    """Return a maker of outboxes of one agent: each is its next process."""
    client = redis.Redis.from_url(redis_url)

    def send(report: Report, _: bool) -> None:
        sent.append(report)

    return lambda: Outbox(tmp_path, send, LOGGER, lambda run: StateParcel(client, POOL, run))


def post(outbox: Outbox, finished: PhaseFinished) -> None:
    outbox.post(finished)
    outbox.flush(10)


@pytest.mark.parametrize("error", [TOLD, f"The apply has failed.\n\n{TOLD}", "x" * (MAX_ERROR - len(TOLD)) + TOLD])
@pytest.mark.parametrize("again", [False, True])
def test_a_report_whose_state_can_not_be_sent_says_where_it_is(
    outbox: Outboxes, tmp_path: Path, sent: list[Report], error: str, again: bool
) -> None:
    process, finished = outbox(), report(error)
    process.keep(finished, LEASE, "encrypted", (TOLD, INSTEAD))
    (tmp_path / f"{NAME}.state").unlink()
    post(outbox() if again else process, finished)
    (found,) = sent
    assert isinstance(found, PhaseFinished)
    assert found.error is not None
    assert found.rescued == RescuedState(bytes=1, sent=False)
    assert found.error.endswith(INSTEAD)
    assert TOLD not in found.error
    assert found.error[:5] == (error if error != TOLD else INSTEAD)[:5]
    assert PhaseFinished.model_validate(found.model_dump()) == found


def test_a_report_is_kept_though_its_state_can_not_be(outbox: Outboxes, tmp_path: Path, sent: list[Report]) -> None:
    (tmp_path / f".{NAME}.state.draft").mkdir()
    outbox().keep(report(TOLD), LEASE, "encrypted", (TOLD, INSTEAD))
    process = outbox()
    assert process.tokens() == [TOKEN]
    post(process, report(TOLD))
    assert [each.error for each in sent if isinstance(each, PhaseFinished)] == [INSTEAD]


def test_a_report_of_an_earlier_version_is_read(outbox: Outboxes, tmp_path: Path) -> None:
    outbox().keep(report(TOLD), LEASE)
    path = tmp_path / f"{NAME}.json"
    path.write_text(path.read_text().replace(', "advice": []', ""))
    assert "advice" not in path.read_text()
    assert outbox().tokens() == [TOKEN]


def test_a_stored_report_that_a_configuration_wrote_can_be_sent(
    outbox: Outboxes, tmp_path: Path, sent: list[Report]
) -> None:
    """One that can't is tried again and again, before all others."""
    outbox().keep(report(TOLD).model_copy(update={"outputs": {"x": "\ud800"}, "rescued": None}), LEASE)
    process = outbox()
    post(process, process._kept[TOKEN].report)
    assert [each.model_dump_json() for each in sent]
