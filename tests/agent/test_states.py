"""States that can't be saved, and locks that are held, with a real Terraform and a backend that keeps both."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from agent import http_lock
from agent.execution import PhaseFailed, locks_as
from tests.agent.conftest import Bench, Configuration, of_apply
from tests.http_backend import HttpBackend, http_backend
from workers.protocol.encryption import Keyring, new_key
from workers.protocol.kinds import FailureReason, RunKind
from workers.protocol.messages import Order
from workers.protocol.pool_secret import PoolSecret
from workers.protocol.states import DeadHolder, StateLock, StateStep, unpack

HOLDING = 'resource "terraform_data" "first" { input = 1 }\n'
DEAD = ("3b6c", "root@gone-1", "2026-11-26T10:00:00Z")


@pytest.fixture(scope="module")
def server() -> Iterator[HttpBackend]:
    with http_backend() as backend:
        yield backend


@pytest.fixture
def backend(server: HttpBackend) -> HttpBackend:
    server.states.clear()
    server.locks.clear()
    server.held.clear()
    server.full = False
    server.unlock_failures = 0
    server.before_lock = lambda: None
    return server


@dataclass
class Sent:
    """What is on its way to the bench's agent, which has its pool's payload key."""

    key: Keyring
    state: str | None = None

    def read(self, encrypted: str) -> Any:
        return json.loads(unpack(self.key.decrypt_bytes(encrypted)))


@pytest.fixture
def sent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Sent:
    payload_key, secret = new_key(), bench.work_dir.with_name("secret")
    secret.mkdir()
    content = PoolSecret(username="u", password="p", payload_keys=(payload_key,))
    (secret / "pool.json").write_text(content.model_dump_json())
    sent = Sent(Keyring([payload_key], "the test"))
    phases = replace(bench.phases, secret_dir=secret, fetch_state=lambda run: sent.state if run == "run-2" else None)
    monkeypatch.setattr(Bench, "phases", property(lambda _: phases))
    return sent


def refused(bench: Bench, order: Order) -> tuple[PhaseFailed, Any]:
    execution = bench.execution(order)
    with pytest.raises(PhaseFailed) as failed:
        bench.execute(order, execution)
    return failed.value, execution


def fails_to_save(bench: Bench, order: Order, backend: HttpBackend) -> tuple[PhaseFailed, Any]:
    bench.execute(order)
    backend.full = True
    found = refused(bench, of_apply(order))
    backend.full = False
    return found


def step(make_order: Any, configuration: Configuration, **what: str) -> Order:
    options = {"state": StateStep(**what)}
    return make_order(configuration.source, run="run-2", kind=RunKind.PLAN, options=options)


class TestAStateThatCanNotBeSaved:
    def test_leaves_the_agent_encrypted_and_is_pushed_by_another(
        self, bench: Bench, make_order: Any, configuration: Configuration, backend: HttpBackend, sent: Sent
    ) -> None:
        configuration.write(backend.block("net") + HOLDING)
        order = make_order(configuration.source)
        failed, execution = fails_to_save(bench, order, backend)
        assert "`terraslot state push run-1` saves it" in failed.text
        rescued = execution.findings["rescued"]
        assert (rescued.sent, rescued.bytes > 100) == (True, True)
        kept = Path(order.state_path).with_name("net-run-1.errored.tfstate")
        assert failed.text.endswith(execution.advice[0])
        assert f"alone, as {kept}." in execution.advice[1]
        assert "terraform_data" not in execution.rescued
        state = sent.read(execution.rescued)
        assert len(state["resources"]) == 1
        assert backend.states == {}

        sent.state = execution.rescued
        for _ in range(2):  # an agent that was lost before it could report has done it
            pushed = bench.execute(step(make_order, configuration, push="run-1"))
            assert (pushed.outcome, pushed.changed) == ("succeeded", False)
        assert backend.states["/net"]["resources"] == state["resources"]
        assert bench.execute(order).changed is False
        assert "terraform_data" not in "".join(bench.lines.texts[-3:])

    def test_is_not_pushed_over_a_newer_one(
        self, bench: Bench, make_order: Any, configuration: Configuration, backend: HttpBackend, sent: Sent
    ) -> None:
        configuration.write(backend.block("net") + HOLDING)
        _, execution = fails_to_save(bench, make_order(configuration.source), backend)
        state = sent.read(execution.rescued)
        newer = backend.states["/net"] = {
            **state,
            "serial": state["serial"] + 1,
            "outputs": {"new": {"value": 1, "type": "number"}},
        }
        sent.state = execution.rescued
        failed, _ = refused(bench, step(make_order, configuration, push="run-1"))
        assert "serial" in failed.text
        assert backend.states["/net"] == newer

    def test_is_refused_in_terraforms_words_where_the_one_that_is_there_is_long(
        self, bench: Bench, make_order: Any, configuration: Configuration, backend: HttpBackend, sent: Sent
    ) -> None:
        configuration.write(backend.block("net") + HOLDING)
        _, execution = fails_to_save(bench, make_order(configuration.source), backend)
        state = sent.read(execution.rescued)
        long = {"long": {"value": "x" * 2**20, "type": "string"}}
        backend.states["/net"] = {**state, "serial": state["serial"] + 1, "outputs": long}
        sent.state = execution.rescued
        failed, _ = refused(bench, step(make_order, configuration, push="run-1"))
        assert (failed.reason, "serial" in failed.text) == (FailureReason.TERRAFORM_FAILED, True)

    def test_that_has_not_arrived_is_not_pushed(
        self, bench: Bench, make_order: Any, configuration: Configuration, backend: HttpBackend, sent: Sent
    ) -> None:
        configuration.write(backend.block("net") + HOLDING)
        assert sent.state is None
        failed, _ = refused(bench, step(make_order, configuration, push="run-1"))
        assert "has not arrived" in failed.text

    def test_stays_where_it_is_without_a_key(
        self, bench: Bench, make_order: Any, configuration: Configuration, backend: HttpBackend
    ) -> None:
        configuration.write(backend.block("net") + HOLDING)
        order = make_order(configuration.source)
        _, execution = fails_to_save(bench, order, backend)
        assert (execution.findings["rescued"].sent, execution.rescued) == (False, None)
        kept = Path(order.state_path).with_name("net-run-1.errored.tfstate")
        assert len(json.loads(kept.read_text())["resources"]) == 1


class TestALock:
    @pytest.fixture(autouse=True)
    def _soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("agent.terraform.LOCK_SECONDS", 0)

    def test_is_told_as_terraform_tells_it_and_not_as_a_configuration_prints_it(
        self, bench: Bench, make_order: Any, configuration: Configuration, backend: HttpBackend
    ) -> None:
        words = json.dumps("x\nError: Error acquiring the state lock\nLock Info:\n ID: forged\n Who: root@gone-1")
        false = f"condition = terraform_data.first.input == 2\n error_message = {words}"
        output = f'output "o" {{\n value = 1\n precondition {{\n {false}\n }}\n}}'
        configuration.write(f"{backend.block('net')}{HOLDING}{output}")
        failed, execution = refused(bench, make_order(configuration.source))
        assert "forged" in failed.text
        assert "lock" not in execution.findings
        backend.lock("net", *DEAD)
        failed, execution = refused(bench, make_order(configuration.source))
        assert execution.findings["lock"] == StateLock(
            id=DEAD[0], who=DEAD[1], operation="OperationTypeApply", created=DEAD[2]
        )
        assert backend.locks["/net"]["ID"] == DEAD[0]

    def test_is_waited_for(
        self, bench: Bench, make_order: Any, configuration: Configuration, backend: HttpBackend,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr("agent.terraform.LOCK_SECONDS", 60)
        configuration.write(backend.block("net") + HOLDING)
        backend.lock("net", *DEAD)
        backend.free_after("net", 2)
        assert bench.execute(make_order(configuration.source)).changed

    @pytest.fixture
    def _patient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("agent.terraform.LOCK_SECONDS", 600)

    @pytest.mark.usefixtures("_patient")
    def test_of_a_holder_that_the_order_names_as_dead_is_not_waited_for(
        self, bench: Bench, make_order: Any, configuration: Configuration, backend: HttpBackend, sent: Sent
    ) -> None:
        configuration.write(backend.block("net") + HOLDING)
        _, execution = fails_to_save(bench, make_order(configuration.source), backend)
        sent.state = execution.rescued
        backend.lock("net", *DEAD)
        taken = StateLock(id=DEAD[0], created=DEAD[2]).at or 0
        dead = DeadHolder(who=DEAD[1], since=taken - 1, until=taken + 1)
        push = {"run": "run-2", "kind": RunKind.PLAN, "options": {"state": StateStep(push="run-1")}}
        for what in ({}, push):
            failed, execution = refused(bench, make_order(configuration.source, dead_holders=(dead,), **what))
            assert (execution.findings["lock"].id, "Error acquiring" in failed.text) == (DEAD[0], True)
        assert not any("may live" in text for text in bench.lines.texts)

    @pytest.mark.usefixtures("_patient")
    def test_of_any_other_is_waited_for_though_somebody_died(
        self, bench: Bench, make_order: Any, configuration: Configuration, backend: HttpBackend
    ) -> None:
        configuration.write(backend.block("net") + HOLDING)
        backend.lock("net", *DEAD)
        backend.free_after("net", 3)
        taken = StateLock(id=DEAD[0], created=DEAD[2]).at or 0
        dead = DeadHolder(who=DEAD[1], since=taken - 2, until=taken - 1)
        execution = bench.execution(make_order(configuration.source, dead_holders=(dead,)))
        finished = bench.execute(execution.order, execution)
        assert (finished.changed, finished.lock) == (True, None)
        assert any("may live: the lock is waited for" in text for text in bench.lines.texts)

    def test_is_ended_by_its_id_alone_and_twice(
        self, bench: Bench, make_order: Any, configuration: Configuration, backend: HttpBackend
    ) -> None:
        configuration.write(backend.block("net") + HOLDING)
        backend.lock("net", *DEAD)
        failed, _ = refused(bench, step(make_order, configuration, unlock="other"))
        assert f"Another lock than other is held, by {DEAD[1]} since" in failed.text
        assert backend.locks["/net"]["ID"] == DEAD[0]
        for _ in range(2):
            assert bench.execute(step(make_order, configuration, unlock=DEAD[0])).outcome == "succeeded"
        assert backend.locks == {}

    @staticmethod
    def probe(tmp_path: Path, config: dict[str, str]) -> subprocess.Popen[str]:
        """Start what asks an ``http`` backend who holds its lock."""
        record = tmp_path / "record"
        record.write_text(json.dumps({"backend": {"config": config}}))
        argv = [sys.executable, "-I", http_lock.__file__, str(record)]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    @staticmethod
    def addresses(backend: HttpBackend) -> dict[str, str]:
        return {f"{name}address": f"{backend.url}/net" for name in ("", "lock_", "unlock_")}

    @pytest.mark.parametrize(("failures", "left"), [(1, False), (99, True)])
    def test_that_was_free_is_given_back_to_a_server_that_has_failed_once(
        self, tmp_path: Path, backend: HttpBackend, failures: int, left: bool
    ) -> None:
        backend.unlock_failures = failures
        probe = self.probe(tmp_path, self.addresses(backend))
        printed, errors = probe.communicate(timeout=30)
        (asked,) = backend.held
        assert (printed, probe.returncode != 0, bool(backend.locks)) == ("", left, left)
        assert (f"The lock {asked['ID']}" in errors) is left

    def test_that_was_free_is_given_back_by_a_run_that_is_stopped(self, tmp_path: Path, backend: HttpBackend) -> None:
        known: queue.Queue[int] = queue.Queue()
        backend.before_lock = lambda: os.kill(known.get(timeout=30), signal.SIGINT)
        probe = self.probe(tmp_path, self.addresses(backend))
        known.put(probe.pid)
        assert (probe.communicate(timeout=30), probe.returncode) == (("", ""), 0)
        assert (len(backend.held), backend.locks) == (1, {})

    def test_is_not_asked_for_where_it_could_not_be_given_back(self, tmp_path: Path, backend: HttpBackend) -> None:
        probe = self.probe(tmp_path, {**self.addresses(backend), "unlock_address": ""})
        probe.communicate(timeout=30)
        assert backend.held == []

    def test_names_the_user_and_host_that_the_agent_reports(
        self, bench: Bench, make_order: Any, configuration: Configuration, backend: HttpBackend
    ) -> None:
        configuration.write(backend.block("net") + HOLDING)
        bench.execute(make_order(configuration.source))
        assert backend.held[-1]["Who"] == locks_as()
