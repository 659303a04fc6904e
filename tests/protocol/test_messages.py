"""What the contract between agent and control plane allows each of them to say: more than the other knows (F38)."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from workers.protocol.kinds import Phase, RunKind
from workers.protocol.messages import (
    REPORT,
    AgentRegistered,
    AgentStopped,
    CancelRequest,
    Changes,
    Order,
    PhaseFinished,
    PhaseStarted,
)
from workers.protocol.sources import DirectorySource, GitSource
from workers.specs.pools import PoolSpec
from workers.specs.workspaces import WorkspaceSpec

TOKEN = "t" * 20
ORDER: dict[str, Any] = {
    "run": "run-1", "workspace": "net", "kind": "plan", "phase": "plan", "slot": 1, "token": TOKEN,
    "source": {"type": "directory", "path": "/code"}, "timeout": 60.0, "interrupt_grace": 5.0,
}  # fmt: skip
LEASE = {"pool": "default", "agent": "default-1", "run": "run-1", "token": TOKEN}
STARTED = {**LEASE, "type": "phase_started", "phase": "plan"}
FINISHED = {**LEASE, "type": "phase_finished", "phase": "plan", "outcome": "succeeded"}
STOPPED = {"type": "agent_stopped", "pool": "default", "agent": "default-1", "incarnation": "2.f00d"}
REGISTERED = {"type": "agent_registered", "pool": "default", "agent": "default-1"}
CANCEL = {"run": "run-1", "token": TOKEN, "mode": "kill"}


@pytest.mark.parametrize(
    ("kind", "sent"),
    [(Order, ORDER), (CancelRequest, CANCEL), (PhaseStarted, STARTED), (PhaseFinished, FINISHED),
     (AgentStopped, STOPPED), (AgentRegistered, REGISTERED)],
)  # fmt: skip
class TestMessage:
    def test_says_on_the_wire_what_is_not_default_and_nothing_else(self, kind: Any, sent: dict[str, Any]) -> None:
        assert kind.model_validate(sent).wire() == sent

    def test_is_read_with_a_field_of_a_later_version_and_keeps_it(self, kind: Any, sent: dict[str, Any]) -> None:
        later = {**sent, "later": {"a": 1}}
        assert kind.model_validate(later).wire() == later

    def test_of_a_known_field_with_an_impossible_value_is_refused(self, kind: Any, sent: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            kind.model_validate({**sent, next(iter(LEASE.keys() & sent.keys())): ["no text"]})


def test_a_report_is_told_by_its_type() -> None:
    for sent in (STARTED, FINISHED, STOPPED, REGISTERED):
        assert REPORT.validate_python(sent).wire() == sent


def test_what_is_not_default_goes_along_whole() -> None:
    order = Order(
        run="run-1", workspace="net", kind=RunKind.PLAN_AND_APPLY, phase=Phase.APPLY, slot=0, token=TOKEN,
        source=GitSource(url="https://git.example/net", subdir="prod"), commit="c" * 40, variables={"a": [1]},
        environment={"B": "2"}, encrypted="cipher", destroy=True, timeout=60, interrupt_grace=5, state_path="/state",
    )  # fmt: skip
    assert Order.model_validate(order.wire()) == order
    assert order.wire()["sealed"] == "cipher", "the field's name since version 1"
    assert order.wire()["source"] == {"type": "git", "url": "https://git.example/net", "subdir": "prod"}
    finished = PhaseFinished(**LEASE, phase=Phase.PLAN, outcome="succeeded", changed=True, changes=Changes(add=2))
    assert finished.wire() == {**FINISHED, "changed": True, "changes": {"add": 2}}


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        (PoolSpec, {"name": "net", "later": 1, "limits": {"max_agents": 5, "later": 2}, "timeouts": {"later": 3}}),
        (PoolSpec, {"name": "net", "type": "kubernetes", "kubernetes": {"image": "i", "later": {"a": 1}}}),
        (WorkspaceSpec, {"name": "net", "later": [1], "source": {"type": "directory", "path": "/x", "later": 2}}),
    ],
)
class TestStoredConfiguration:
    def test_is_read_with_fields_of_a_later_version_and_keeps_them(
        self, kind: type[BaseModel], stored: dict[str, Any]
    ) -> None:
        assert kind.model_validate(stored).model_dump(mode="json", exclude_defaults=True) == stored

    def test_with_such_a_field_is_refused_where_a_person_edits_it(
        self, kind: type[BaseModel], stored: dict[str, Any]
    ) -> None:
        with pytest.raises(ValidationError, match="later"):
            kind.model_validate(stored, extra="forbid")


def test_a_source_says_its_kind_also_where_it_is_the_default() -> None:
    assert DirectorySource(path="/x").model_dump(exclude_defaults=True) == {"type": "directory", "path": "/x"}
