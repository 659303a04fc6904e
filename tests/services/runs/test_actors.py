"""Who asks and who decides: on record with reasons; and whose confirmation counts, where the decision is made."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery.exceptions import Ignore

from tests.services.conftest import ControlPlane, HandAgent
from workers import tasks
from workers.core.approval import Actor, Approval
from workers.core.errors import ApprovalRefused
from workers.core.lifecycle import RunStatus
from workers.protocol.errors import InvalidRequest
from workers.services import workspaces
from workers.services.runs import decide
from workers.services.runs import views as run_views
from workers.services.scaling.reconcile import reconcile_pods

Send = Callable[..., dict[str, Any]]


@pytest.fixture
def send(control: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Send:
    """Return what executes a control task as Celery would, with the header that says who asks."""
    monkeypatch.setattr(tasks, "system", lambda: control.system)

    def execute(task: Any, run: str, actor: object = None, task_id: str = "", **options: Any) -> dict[str, Any]:
        said = {} if actor is None else {"terraslot_actor": actor}
        task.push_request(id=task_id or f"{task.name}-{actor}", **said)
        try:
            answer: dict[str, Any] = task.run(run, **options)
        finally:
            task.pop_request()
        return answer

    return execute


def require(control: ControlPlane, **rules: Any) -> None:
    spec = workspaces.get(control.system, "net")
    workspaces.update(control.system, spec.model_copy(update={"approval": Approval(**rules), "auto_apply": False}))


def planned(control: ControlPlane, actor: str | None = "anna", **rules: Any) -> tuple[str, HandAgent]:
    """Bring a run that ``actor`` asked for to where it waits; return its id and its agent."""
    control.workspace()
    require(control, **rules)
    agent = control.agent()
    reconcile_pods(control.system, control.spec())
    run = control.submit(actor=None if actor is None else Actor(actor))
    agent.work()
    return run.id, agent


def trail(control: ControlPlane, run: str) -> list[tuple[str, object, object]]:
    seen = run_views.one(control.system.database, run)
    events = run_views.events(control.system.database, seen)
    return [(each.event, each.detail["actor"], each.detail.get("message")) for each in events if "actor" in each.detail]


class TestTheAuditTrail:
    def test_has_who_asked_and_who_decided_and_why(self, control: ControlPlane, send: Send) -> None:
        run, agent = planned(control)
        send(tasks.confirm, run, "bob", message="looks right")
        agent.start(agent.order())
        send(tasks.cancel, run, "anna", message="wrong region")
        assert trail(control, run) == [
            ("submitted", "anna", None),
            ("confirmed", "bob", "looks right"),
            ("cancel requested", "anna", "wrong region"),
        ]
        assert run_views.one(control.system.database, run).actor == "anna"

    def test_has_a_refused_plan_and_a_refused_decision(self, control: ControlPlane, send: Send) -> None:
        run, _ = planned(control)
        send(tasks.discard, run, "bob", message="no")
        with pytest.raises(Exception, match="it is discarded"):
            send(tasks.confirm, run, "carol")
        assert trail(control, run)[1:] == [("discarded", "bob", "no"), ("request refused", "carol", None)]

    @pytest.mark.parametrize("name", ["", " ", "a\nb", "\x1b[1m", "x" * 201, 7, ["anna"]])
    def test_takes_no_name_that_can_not_be_shown(self, control: ControlPlane, send: Send, name: object) -> None:
        run, _ = planned(control)
        with pytest.raises(InvalidRequest, match="is no actor"):
            send(tasks.confirm, run, name)
        assert control.run(run).status is RunStatus.APPLY_PENDING

    def test_takes_no_endless_message(self, control: ControlPlane, send: Send) -> None:
        run, _ = planned(control)
        with pytest.raises(InvalidRequest, match="500 characters"):
            send(tasks.discard, run, "bob", message="x" * 501)


class TestAnotherPersonThanTheOneWhoAsked:
    @pytest.mark.parametrize(
        ("actor", "why"), [("anna", "anna has asked for it"), ("Anna", "Anna has asked"), (None, "names nobody")]
    )
    def test_has_to_confirm(self, control: ControlPlane, send: Send, actor: str | None, why: str) -> None:
        run, agent = planned(control, four_eyes=True)
        for _ in range(2):
            with pytest.raises(ApprovalRefused, match=why):
                send(tasks.confirm, run, actor)
        assert control.run(run).status is RunStatus.APPLY_PENDING
        assert send(tasks.confirm, run, "bob")["status"] == "applying"
        assert agent.work().phase == "apply"

    def test_is_required_of_nobody_for_a_refusal(self, control: ControlPlane, send: Send) -> None:
        run, _ = planned(control, four_eyes=True)
        assert send(tasks.discard, run, "anna")["status"] == "discarded"

    def test_so_a_run_says_who_asks(self, control: ControlPlane) -> None:
        control.workspace()
        require(control, four_eyes=True)
        with pytest.raises(InvalidRequest, match="does not say who asks"):
            control.submit()

    def test_is_not_known_for_a_run_that_was_asked_for_before(self, control: ControlPlane, send: Send) -> None:
        run, _ = planned(control, actor=None)
        require(control, four_eyes=True)
        with pytest.raises(ApprovalRefused, match="nobody knows who that was"):
            send(tasks.confirm, run, "bob")


class TestSeveralApprovals:
    def test_the_last_one_confirms_and_each_message_counts_once(self, control: ControlPlane, send: Send) -> None:
        run, agent = planned(control, approvals=2)
        first = send(tasks.confirm, run, "bob", message="ok")
        assert first["status"] == "apply_pending"
        assert send(tasks.confirm, run, "bob") == first  # delivered again
        with pytest.raises(ApprovalRefused, match="bob has approved it already"):
            send(tasks.confirm, run, "bob", "another-message")
        said = run_views.approval(control.system.database, run_views.one(control.system.database, run))
        assert said == "1 of 2 needed, of anybody; approved by bob"
        assert send(tasks.confirm, run, "carol")["status"] == "applying"
        assert send(tasks.confirm, run, "bob") == first
        assert agent.work().phase == "apply"
        assert [who for event, who, _ in trail(control, run) if event in ("approved", "confirmed")] == ["bob", "carol"]

    def test_count_anew_for_a_new_plan(self, control: ControlPlane, send: Send) -> None:
        run, agent = planned(control, approvals=2)
        send(tasks.confirm, run, "bob")
        del control.pods.pods[agent.name]
        reconcile_pods(control.system, control.spec())
        control.agent("default-2").work()
        assert send(tasks.confirm, run, "carol")["status"] == "apply_pending"

    def test_at_the_same_moment_are_counted_one_after_the_other(
        self, control: ControlPlane, send: Send, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run, _ = planned(control, approvals=2)
        lock, answers = decide.lock_workspace_of, []

        def meanwhile(session: Any, run_id: str) -> Any:
            """Let another approval come up to the lock before this one has it, and wait there."""
            monkeypatch.setattr(decide, "lock_workspace_of", lock)
            answers.append(pool.submit(send, tasks.confirm, run, "carol"))
            return lock(session, run_id)

        monkeypatch.setattr(decide, "lock_workspace_of", meanwhile)
        with ThreadPoolExecutor(1) as pool:
            assert send(tasks.confirm, run, "bob")["status"] == "apply_pending"
            assert answers[0].result(timeout=20)["status"] == "applying"


def test_only_those_who_are_named_confirm(control: ControlPlane, send: Send) -> None:
    run, _ = planned(control, names=["bob", "carol"], approvals=2)
    with pytest.raises(ApprovalRefused, match="dave is none of those who may confirm: bob, carol"):
        send(tasks.confirm, run, "dave")
    assert send(tasks.confirm, run, "bob")["status"] == "apply_pending"
    assert send(tasks.confirm, run, "Carol")["status"] == "applying"


class TestARunThatWouldConfirmItself:
    @pytest.mark.parametrize("rules", [{"approvals": 2}, {"four_eyes": True}, {"names": ("bob",)}])
    def test_is_refused_where_who_asks_may_not_confirm_it(self, control: ControlPlane, rules: Any) -> None:
        control.workspace()
        require(control, **rules)
        with pytest.raises(InvalidRequest, match=r"an approval that anna can't give: leave out --yes \(auto_apply\)"):
            control.submit(actor=Actor("anna"), auto_apply=True)
        with pytest.raises(InvalidRequest):
            control.submit(auto_apply=True)

    def test_is_the_confirmation_of_who_asks(self, control: ControlPlane) -> None:
        control.workspace()
        require(control, names=("Anna", "bob"))
        agent, run = control.agent(), control.submit(actor=Actor("anna"), auto_apply=True)
        agent.work()
        assert control.run(run.id).status is RunStatus.APPLYING
        assert ("planned_auto_apply", "anna", None) in trail(control, run.id)

    def test_waits_for_people_where_the_rule_came_later(self, control: ControlPlane) -> None:
        control.workspace(auto_apply=True)
        agent, run = control.agent(), control.submit()
        require(control, approvals=2)
        agent.work()
        assert control.run(run.id).status is RunStatus.APPLY_PENDING

    def test_can_not_be_what_a_workspace_says_beside_an_approval(self, control: ControlPlane) -> None:
        with pytest.raises(ValueError, match="leaves nobody to approve"):
            control.workspace(auto_apply=True, approval={"four_eyes": True})
        with pytest.raises(ValueError, match="fewer people are named"):
            Approval(names=("bob", "Bob"), approvals=2)


def test_the_actor_of_a_submission_is_that_of_its_message(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "system", lambda: control.system)
    control.workspace()
    tasks.plan.push_request(id="run-x", terraslot_actor="anna", timelimit=(None, None))
    try:
        with pytest.raises(Ignore):
            tasks.plan.run("net")
    finally:
        tasks.plan.pop_request()
    assert trail(control, "run-x") == [("submitted", "anna", None)]
