"""What is wrong with one run fails that run, with the reason on its record, and keeps no other from going on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisAway
from structlog.testing import capture_logs

from tests.services.conftest import ControlPlane, HandAgent
from workers.core.errors import RunFailed, Unavailable
from workers.core.runs import FailureReason, RunKind, RunStatus
from workers.core.workspaces import SensitiveVariables
from workers.services import delivery, orders, runs, sensitive
from workers.services.credentials import ensure_secret_for_pool
from workers.services.dispatch import dispatch
from workers.services.reconcile import reconcile_pods
from workers.store.models import Workspace
from workers.store.secrets import Owner, put_variables

Clock = Callable[[float], None]
KINDS = pytest.mark.parametrize("kind", list(RunKind))


def spoil_secret(control: ControlPlane, name: str) -> None:
    """Leave a workspace's sensitive variables sealed with a key that is gone."""
    ensure_secret_for_pool(control.system, control.spec())
    sensitive.set_for_workspace(control.system, name, SensitiveVariables(variables={"x": "hunter2"}))
    with control.system.database.begin() as session:
        put_variables(session, Owner.WORKSPACE, name, "of another key", control.system.now())


def spoil_source(control: ControlPlane, name: str) -> None:
    with control.system.database.begin() as session:
        row = session.get_one(Workspace, name)
        row.spec = {**row.spec, "source": {"type": "git", "url": "ext::sh -c hunter2"}}


def delete(control: ControlPlane, name: str) -> None:
    with control.system.database.begin() as session:
        session.delete(session.get_one(Workspace, name))


@KINDS
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_secret, "order for its plan can't be made: None of the keys in TERRASLOT_ENCRYPTION_KEYS opens"),
        (spoil_source, "a git URL starts with"),
        (delete, "No workspace has the name 'bad'"),
    ],
)
def test_a_run_that_can_not_be_ordered_fails_alone_and_says_why(
    control: ControlPlane, kind: RunKind, spoil: Callable[[ControlPlane, str], None], words: str
) -> None:
    for name in ("bad", "good"):
        control.workspace(name)
    bad, good = control.submit(kind, "bad", priority=1), control.submit(kind, "good")
    spoil(control, "bad")
    agent = control.agent()

    assert agent.work(changed=False).run == good.id
    with pytest.raises(RunFailed, match=words) as failed:
        delivery.outcome(control.run(bad.id))
    assert "hunter2" not in str(failed.value)
    assert control.run(bad.id).reason is FailureReason.AGENT_ERROR
    assert set(control.deliveries()) == {bad.id, good.id}
    assert control.quiet()


def test_a_run_waits_where_a_server_is_away(control: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    control.workspace()
    run = control.submit(RunKind.PLAN)
    control.slots.register("default-1", "life-1")

    def away(*_: object, **__: object) -> None:
        raise Unavailable("The database does not answer.")

    with monkeypatch.context() as outage:
        outage.setattr("workers.store.runs.record", away)
        with pytest.raises(Unavailable):
            dispatch(control.system, "default")
    assert control.run(run.id).status is RunStatus.PENDING
    dispatch(control.system, "default")
    assert control.run(run.id).status is RunStatus.PLANNING


def test_a_pool_without_its_secret_yet_fails_no_run(control: ControlPlane) -> None:
    control.workspace()
    sensitive.set_for_workspace(control.system, "net", SensitiveVariables(variables={"x": "hunter2"}))
    run = control.submit(RunKind.PLAN)
    control.slots.register("default-1", "life-1")
    with pytest.raises(Unavailable, match="no Secret yet"):
        dispatch(control.system, "default")
    assert not control.run(run.id).status.is_over


def test_an_apply_that_can_not_be_ordered_fails_and_frees_its_slot(control: ControlPlane) -> None:
    control.workspace()
    agent = control.agent()
    run, next_one = control.submit(), control.submit()
    agent.work()
    spoil_secret(control, "net")
    assert runs.confirm(control.system, run.id).status is RunStatus.FAILED
    assert "order for its apply can't be made" in (control.run(run.id).error or "")
    assert control.run(next_one.id).status is RunStatus.FAILED, "of the same workspace, it can't be ordered either"
    assert control.quiet()


class TestOneActionOfReconcile:
    @pytest.fixture
    def lost(self, control: ControlPlane) -> list[str]:
        """Two runs whose orders were lost."""
        for name in ("bad", "good"):
            control.workspace(name)
        agent = control.agent()
        found = [control.submit(RunKind.PLAN, name).id for name in ("bad", "good")]
        assert len(agent.orders()) == len(found)
        return found

    @staticmethod
    def failing(monkeypatch: pytest.MonkeyPatch, run_id: str, error: Exception) -> None:
        send = orders.send

        def sent(system: Any, run: Any, *arguments: Any, **facts: Any) -> bool:
            if run.id == run_id:
                raise error
            return send(system, run, *arguments, **facts)

        monkeypatch.setattr(orders, "send", sent)

    def test_that_raises_is_logged_by_name_and_the_others_are_performed(
        self, control: ControlPlane, clock_ahead: Clock, lost: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bad, good = lost
        self.failing(monkeypatch, bad, ValueError("a fault"))
        clock_ahead(11)
        with capture_logs() as logged:
            reconcile_pods(control.system, control.spec())
        assert [order.run for order in HandAgent(control, "default-1").orders()] == [good]
        (failure,) = [line for line in logged if line["log_level"] == "error"]
        assert (failure["pool"], failure["run"], failure["action"]) == ("default", bad, "ResendOrder")

    def test_that_meets_no_redis_ends_the_pass(
        self, control: ControlPlane, clock_ahead: Clock, lost: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.failing(monkeypatch, lost[0], RedisAway("away"))
        clock_ahead(11)
        with pytest.raises(RedisAway):
            reconcile_pods(control.system, control.spec())

    def test_whose_order_can_not_be_made_ends_that_run_alone(
        self, control: ControlPlane, clock_ahead: Clock, lost: list[str]
    ) -> None:
        bad, good = lost
        spoil_secret(control, "bad")
        clock_ahead(11)
        reconcile_pods(control.system, control.spec())
        assert control.run(bad).status is RunStatus.FAILED
        assert control.run(good).status is RunStatus.PLANNING
