"""What is wrong with one run fails that run, with the reason on its record, and keeps no other from going on.

What the platform lacks, a server or a key, fails none.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from kombu.exceptions import OperationalError
from pydantic import SecretStr
from redis.exceptions import ConnectionError as RedisAway
from redis.exceptions import ResponseError
from structlog.testing import capture_logs

from tests.services.conftest import ControlPlane, HandAgent
from workers.core.errors import RunFailed
from workers.core.lifecycle import RunStatus
from workers.protocol.encryption import NoKey, new_key
from workers.protocol.errors import Unavailable
from workers.protocol.kinds import FailureReason, RunKind
from workers.protocol.sources import SensitiveVariables
from workers.services import workspaces
from workers.services.errors import is_outage
from workers.services.runs import decide, orders, outcome, waiting
from workers.services.runs.auto_apply import order_apply
from workers.services.runs.dispatch import dispatch
from workers.services.scaling.reconcile import reconcile_pods
from workers.services.secrets.credentials import ensure_secret_for_pool
from workers.services.secrets.variables import Change
from workers.services.system import System
from workers.store.models import Workspace
from workers.store.secrets import Owner, put_variables

Clock = Callable[[float], None]
KINDS = pytest.mark.parametrize("kind", list(RunKind))


def keep_secret(control: ControlPlane, name: str = "net") -> None:
    """Give a workspace a sensitive variable."""
    ensure_secret_for_pool(control.system, control.spec())
    secret = SensitiveVariables(variables={"x": "hunter2"})
    workspaces.update(control.system, workspaces.get(control.system, name), Change(secret))


def spoil_secret(control: ControlPlane, name: str) -> None:
    """Leave a workspace with encrypted variables that are invalid when they are decrypted."""
    keep_secret(control, name)
    encrypted = control.system.settings.keyring.encrypt({"variables": {"x": "hunter2"}, "environment": 1})
    with control.system.database.begin() as session:
        put_variables(session, Owner.WORKSPACE, name, encrypted, control.system.now())


def elsewhere(control: ControlPlane, keys: str) -> System:
    """Return the system as a process has it that was given other keys, or none."""
    settings = control.system.settings.model_copy(update={"encryption_keys": SecretStr(keys)})
    return replace(control.system, settings=settings)


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
        (spoil_secret, "order for its plan can't be made: environment: must be a mapping of names to values"),
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
        outcome.outcome(control.run(bad.id))
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
    secret = SensitiveVariables(variables={"x": "hunter2"})
    workspaces.update(control.system, workspaces.get(control.system, "net"), Change(secret))
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
    spoil_source(control, "net")
    assert decide.confirm(control.system, run.id).status is RunStatus.FAILED
    assert "order for its apply can't be made" in (control.run(run.id).error or "")
    assert control.run(next_one.id).status is RunStatus.FAILED, "of the same workspace, it can't be ordered either"
    assert control.quiet()


@pytest.mark.parametrize("keys", ["", new_key()], ids=["none", "another"])
class TestAProcessWithoutTheRightKeys:
    """``terraslot cancel`` in somebody's shell, for example, which gives out the slot that it frees."""

    def test_leaves_the_runs_that_need_them_to_others_and_starts_the_rest(
        self, control: ControlPlane, keys: str
    ) -> None:
        for name in ("sealed", "open"):
            control.workspace(name)
        keep_secret(control, "sealed")
        encrypted, other = control.submit(RunKind.PLAN, "sealed", priority=1), control.submit(RunKind.PLAN, "open")
        control.slots.register("default-1", "life-1")

        assert dispatch(elsewhere(control, keys), "default") == 1
        assert (control.run(encrypted.id).status, control.run(encrypted.id).attempt) == (RunStatus.PENDING, 0)
        assert control.run(other.id).status is RunStatus.PLANNING
        said = waiting.reasons(control.system, (encrypted.id,))[encrypted.id]
        assert said.startswith("it can't be started: ")
        assert "TERRASLOT_ENCRYPTION_KEYS" in said
        assert control.slots.find(encrypted.id) is None

        assert dispatch(control.system, "default") == 1
        assert control.run(encrypted.id).status is RunStatus.PLANNING
        assert control.run(encrypted.id).start_error is None

    def test_confirms_nothing_and_costs_nobody_the_plan(self, control: ControlPlane, keys: str) -> None:
        control.workspace()
        agent = control.agent()
        run = control.submit()
        agent.work()
        keep_secret(control)
        with pytest.raises(NoKey, match="TERRASLOT_ENCRYPTION_KEYS"):
            decide.confirm(elsewhere(control, keys), run.id)
        assert control.run(run.id).status is RunStatus.APPLY_PENDING
        decide.confirm(control.system, run.id)
        agent.work()
        assert control.run(run.id).status is RunStatus.SUCCEEDED

    def test_orders_no_apply_at_once_and_costs_nobody_the_plan(self, control: ControlPlane, keys: str) -> None:
        control.workspace(auto_apply=True)
        agent = control.agent()
        run = control.submit()
        order = agent.order()
        assert agent.start(order)
        keep_secret(control)
        with pytest.raises(NoKey):
            order_apply(elsewhere(control, keys), run.id, order.token)
        assert control.slots.heartbeat(agent.name, agent.instance_id, [], [order.token]).repeat == (order.token,)
        agent.finish(order)
        agent.work()
        assert control.run(run.id).status is RunStatus.SUCCEEDED

    def test_looks_after_all_that_need_none(self, control: ControlPlane, clock_ahead: Clock, keys: str) -> None:
        names = ("a", "b", "c", "open")
        for name in names:
            control.workspace(name)
        for number in (1, 2):
            control.agent(f"default-{number}")
        reconcile_pods(control.system, control.spec())
        found = [control.submit(RunKind.PLAN, name).id for name in names]
        for name in names[:-1]:
            keep_secret(control, name)
        agents = [HandAgent(control, f"default-{number}") for number in (1, 2)]
        for agent in agents:
            agent.orders()
        clock_ahead(11)
        reconcile_pods(elsewhere(control, keys), control.spec())
        assert [order.run for agent in agents for order in agent.orders()] == found[-1:]


@pytest.mark.parametrize(
    ("error", "outage"),
    [
        (OSError(errno.EMFILE, "Too many open files"), True),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), True),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/x"), False),
        (OperationalError("no broker"), True),
        (NoKey("no key"), True),
        (RedisAway("away"), True),
        (ResponseError("user_script:9: attempt to index a nil value"), False),
        (ValueError("a fault"), False),
    ],
)
def test_only_what_everybody_would_meet_is_waited_for(error: Exception, outage: bool) -> None:
    assert is_outage(error) is outage


def test_a_lease_that_can_not_be_read_keeps_no_other_run_from_starting(control: ControlPlane) -> None:
    control.workspace("bad")
    control.workspace("good")
    bad, good = control.submit(RunKind.PLAN, "bad", priority=1), control.submit(RunKind.PLAN, "good")
    control.redis.hset("ts:{default}:leases", bad.id, "of another version")
    agent = control.agent()
    assert agent.order().run == good.id
    assert control.run(bad.id).status is RunStatus.PENDING


def test_a_dispatcher_gives_back_no_slot_that_somebody_else_took_for_the_run(control: ControlPlane) -> None:
    control.workspace()
    run = control.submit(RunKind.PLAN)
    control.slots.register("default-1", "life-1")
    theirs = control.slots.acquire(run.id, run.kind, orders.new_token())
    spoil_source(control, "net")
    assert dispatch(control.system, "default") == 0
    assert control.slots.find(run.id) == theirs


class TestOneActionOfReconcile:
    @pytest.fixture
    def lost(self, control: ControlPlane) -> list[str]:
        """Two runs whose orders were lost."""
        for name in ("bad", "good"):
            control.workspace(name)
        agent = control.agent()
        reconcile_pods(control.system, control.spec())
        found = [control.submit(RunKind.PLAN, name).id for name in ("bad", "good")]
        assert len(agent.orders()) == len(found)
        return found

    @staticmethod
    def failing(monkeypatch: pytest.MonkeyPatch, run_id: str, error: Exception) -> None:
        send = orders.send

        def sent(system: Any, what: Any, **facts: Any) -> None:
            if what[0][0].id == run_id:
                raise error
            send(system, what, **facts)

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
        assert (failure["pool"], failure["about"], failure["action"]) == ("default", bad, "RepairRun")

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
        with capture_logs() as logged:
            reconcile_pods(control.system, control.spec())
        assert control.run(bad).status is RunStatus.FAILED
        assert control.run(good).status is RunStatus.PLANNING
        assert [line["run"] for line in logged if line["event"] == "order sent again"] == [good]

    def test_whose_order_can_not_be_made_again_ends_no_run_that_has_started_with_the_first(
        self, control: ControlPlane, clock_ahead: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """F12: its workspace is not free while its apply executes."""
        control.workspace()
        agent = control.agent()
        reconcile_pods(control.system, control.spec())
        run, next_one = control.submit(), control.submit()
        agent.work()
        decide.confirm(control.system, run.id)
        order = agent.order()
        spoil_source(control, "net")
        make = orders.make

        def after_the_agent_took_it(*arguments: Any, **facts: Any) -> Any:
            assert agent.start(order)
            return make(*arguments, **facts)

        monkeypatch.setattr(orders, "make", after_the_agent_took_it)
        clock_ahead(11)
        control.slots.heartbeat(agent.name, agent.instance_id, [], [])
        reconcile_pods(control.system, control.spec())
        lease = control.slots.find(run.id)
        assert lease is not None
        assert (control.run(run.id).status, lease.redeemed, lease.cancel) == (RunStatus.APPLYING, True, None)
        assert not control.run(next_one.id).runnable
