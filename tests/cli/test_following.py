"""A person enqueues, waits, decides: the installed program on an embedded system, with real Terraform."""

from __future__ import annotations

import os
import pty
import pwd
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from subprocess import Popen
from typing import Any

import psutil
import pytest

from tests.waiting import eventually
from workers.cli import system as cli_system
from workers.core.approval import Approval
from workers.core.lifecycle import RunStatus
from workers.services import system as services_system
from workers.services import workspaces
from workers.services.runs import decide, progress
from workers.services.runs import views as run_views
from workers.settings import settings
from workers.store.database import Database

ONE = 'resource "terraform_data" "one" { input = "x" }\noutput "greeting" { value = "hello" }\n'
SLOW = 'resource "terraform_data" "slow" {\n  provisioner "local-exec" { command = "exec sleep 60" }\n}\n'


def test_a_plan_shows_terraforms_output_and_ends_with_0(embedded) -> None:
    embedded.workspace("planned", ONE)
    answer = embedded.program("plan", "planned")
    assert (answer.code, answer.err) == (0, "")
    assert "planned: planning on default-" in answer.out
    assert "Plan: 1 to add, 0 to change, 0 to destroy." in answer.out
    assert "succeeded: 1 to add, 0 to change, 0 to destroy." in answer.out


def test_without_a_terminal_an_apply_is_left_waiting_and_says_how_it_goes_on(embedded, cli) -> None:
    embedded.workspace("waiting", ONE)
    left = cli("apply waiting")
    assert left.code == 3
    run_id = left.out.split("`terraslot confirm ")[1].partition("`")[0]
    confirmed = cli("confirm", run_id[:8])
    assert confirmed.code == 0
    assert "$ terraform apply" in confirmed.out
    assert "$ terraform plan" not in confirmed.out
    assert "greeting = hello" in confirmed.out
    again = cli("confirm", run_id)
    assert again.sentence == f"Run {run_id} can't be confirmed: it is succeeded, not waiting for a confirmation."


REPLACED = """
variable "size" { default = 1 }
resource "terraform_data" "web" { triggers_replace = [var.size] }
"""


def test_a_confirmation_shows_what_it_confirms_and_confirms_no_other_plan(embedded, cli, monkeypatch) -> None:
    name = embedded.workspace("shown", REPLACED)
    assert cli("apply", name, "--yes").code == 0
    left = cli("apply", name, "--var", "size=2")
    assert (left.code, "Its plan destroys 1 resource." in left.out) == (3, True)
    run = embedded.reaches(name, RunStatus.APPLY_PENDING)

    def replanned(database: Any, found: Any) -> Any:
        """Another attempt has made a plan of its own since this one was looked at."""
        return replace(looked_at(database, found), attempt=run.attempt - 1)

    looked_at = run_views.one
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(run_views, "one", replanned)
        refused = cli("confirm", run.run_id)
    assert (refused.code, "that you saw is gone" in refused.err) == (1, True)
    confirmed = cli("confirm", run.run_id, "--json")
    assert (confirmed.code, confirmed.json["status"]) == (0, "succeeded")
    for words in ("1 to add, 0 to change, 1 to destroy.", "Its plan destroys 1 resource.",
                  "-/+ replace terraform_data.web (for triggers_replace; replace because cannot update)"):  # fmt: skip
        assert words in confirmed.err


def test_a_decision_needs_neither_the_database_nor_keys(embedded, cli, monkeypatch) -> None:
    """The task decides: for the command line as for any caller, with its words, and once for one message."""
    name = embedded.workspace("decided", ONE, approval=Approval(four_eyes=True))
    known, nowhere = embedded.system, Database("sqlite:////nowhere/terraslot.db")
    runs = []
    for number in range(3):
        assert cli("apply", name, "--no-wait").code == 0
        runs.append(embedded.reaches(name, RunStatus.APPLY_PENDING).run_id)
        with monkeypatch.context() as without:
            without.setattr(services_system, "system", lambda: replace(known, database=nowhere, settings=None))
            cli_system.system.cache_clear()
            if number == 0:
                cancelled = cli("cancel", runs[0][:8])
                assert (cancelled.code, "is cancelled" in cancelled.out) == (0, True)
                assert "over already" in cli("cancel", runs[0]).sentence
            elif number == 1:
                assert cli("discard", runs[1], "--json").json["status"] == "discarded"
                assert "it is discarded, not waiting" in cli("discard", runs[1]).sentence
            else:
                assert "has asked for it" in cli("confirm", runs[2]).err
                without.setenv("TERRASLOT_ACTOR", "another")
                settings.cache_clear()
                confirmed = cli("confirm", runs[2], "--no-wait", "-m", "looks right")
                assert (confirmed.code, "is applying: `terraslot logs -f" in confirmed.out) == (0, True)
                assert "confirmed unseen" in confirmed.err
            for verb in ("confirm --no-wait", "discard", "cancel"):
                assert "'nowhere'" in cli(f"{verb} nowhere").err
        cli_system.system.cache_clear()
    settings.cache_clear()
    assert embedded.reaches(name, RunStatus.SUCCEEDED).run_id == runs[2]
    trail = [
        (each["event"], each["detail"]["actor"], each["detail"].get("message"))
        for each in cli("show", runs[2], "--events", "--json").json
        if "actor" in each["detail"]
    ]
    me = pwd.getpwuid(os.geteuid()).pw_name
    assert trail == [("submitted", me, None), ("request refused", me, None), ("confirmed", "another", "looks right")]
    assert "looks right" in cli("show", runs[2], "--events").out


def test_an_apply_that_another_person_has_to_confirm_is_left_waiting(embedded, cli) -> None:
    name = embedded.workspace("foureyes", ONE, approval=Approval(four_eyes=True))
    assert "leave out --yes" in cli("apply", name, "--yes").misuse
    left = cli("apply", name)
    assert (left.code, "waits for a confirmation" in left.out) == (3, True)
    run = embedded.latest(name)
    extended = cli("extend", run.run_id[:8], "--for", "1h30m", "-m", "they are at lunch")
    assert (extended.code, "waits 1h 30m longer for a confirmation" in extended.out) == (0, True)
    assert embedded.latest(name).confirm_until == run.confirm_until + timedelta(minutes=90)
    assert "write 90s, 30m, 4h or 2d" in cli("extend", run.run_id, "--for", "soon").err
    assert cli("discard", run.run_id).code == 0


def test_yes_confirms_what_it_planned_and_json_is_alone_on_stdout(embedded, cli) -> None:
    embedded.workspace("json", ONE)
    answer = cli("apply json --yes --json")
    assert answer.code == 0
    run = answer.json
    assert (run["status"], run["changes"]) == ("succeeded", {"add": 1, "change": 0, "destroy": 0})
    assert run["outputs"] == {"greeting": "hello"}
    assert "# terraform_data.one will be created" in answer.err.partition("$ terraform apply")[0]
    again = cli("apply json --yes")
    assert (again.code, "no changes" in again.out) == (0, True)


def test_yes_travels_with_the_request_of_one_who_may_confirm_and_outlives_the_terminal(embedded, cli) -> None:
    me = pwd.getpwuid(os.geteuid()).pw_name
    embedded.workspace("alone", ONE, approval=Approval(names=(me,)))
    with embedded.program.start("apply", "alone", "--yes") as waiting:
        run_id = waiting.stdout.readline().split()[1]
        waiting.kill()
    assert embedded.reaches("alone", RunStatus.SUCCEEDED).run_id == run_id
    decided = {each["event"]: each["detail"].get("actor") for each in cli("show", run_id, "--events", "--json").json}
    assert decided["planned_auto_apply"] == me


def test_a_discarded_plan_is_a_success_of_discard_alone(embedded, cli) -> None:
    embedded.workspace("refused", ONE)
    enqueued = cli("apply refused --no-wait --json")
    assert enqueued.code == 0
    run = embedded.reaches("refused", RunStatus.APPLY_PENDING)
    assert enqueued.json["run_id"] == run.run_id
    discarded = cli("discard", run.run_id, "--json")
    assert (discarded.code, discarded.json["status"]) == (0, "discarded")


def test_code_that_terraform_refuses_ends_with_1_and_terraforms_words(embedded, cli) -> None:
    embedded.workspace("invalid", 'resource "nope" {\n')
    answer = cli("plan invalid")
    assert answer.code == 1
    assert answer.err.endswith("failed (terraform_failed).\n")
    assert (answer.out + answer.err).count("All resource blocks must have 2 labels") == 1
    assert "main.tf line 1" in cli("plan invalid --json").json["error"]


def test_the_runs_id_comes_first_whatever_happens_then(embedded, cli) -> None:
    embedded.workspace("named", ONE)
    assert cli("plan named").out.splitlines()[0] == f"Run {embedded.latest('named').run_id}"


def test_a_workspace_that_is_deleted_while_its_run_is_on_the_way_is_told_at_once(embedded, cli, monkeypatch) -> None:
    embedded.workspace("gone", ONE)
    send = embedded.system.celery.send_task

    def send_late(*arguments: Any, **options: Any) -> Any:
        workspaces.delete(embedded.system, "gone")
        return send(*arguments, **options)

    monkeypatch.setattr(embedded.system.celery, "send_task", send_late)
    answer = cli("plan gone")
    assert answer.code == 1
    assert answer.err == "Error: No workspace has the name 'gone': `terraslot workspace list` shows all.\n"


def test_ctrl_c_leaves_the_run_going_and_cancel_ends_it(embedded, cli) -> None:
    embedded.workspace("slow", SLOW, auto_apply=True)
    with embedded.program.start("apply", "slow") as waiting:
        run = embedded.reaches("slow", RunStatus.APPLYING)
        waiting.send_signal(signal.SIGINT)
        out, err = waiting.communicate(timeout=30)
    assert (waiting.returncode, err) == (130, "")
    assert f"`terraslot logs -f {run.run_id}` follows it" in out
    assert embedded.latest("slow").status is RunStatus.APPLYING
    cancelled = cli("cancel", run.run_id)
    assert (cancelled.code, embedded.latest("slow").status) == (0, RunStatus.CANCELLED)


def test_who_waits_for_a_run_that_is_cancelled_hears_of_it(embedded, cli) -> None:
    embedded.workspace("ended", SLOW, auto_apply=True)

    def cancel() -> None:
        decide.cancel(embedded.system, embedded.reaches("ended", RunStatus.APPLYING).run_id, force=True)

    with ThreadPoolExecutor() as threads:
        cancelled = threads.submit(cancel)
        answer = cli("apply ended")
        cancelled.result()
    assert answer.code == 1
    assert "was cancelled" in answer.err


def test_a_log_is_followed_until_the_run_is_over(embedded, cli) -> None:
    embedded.workspace("logged", SLOW, auto_apply=True)
    assert cli("apply logged --no-wait").code == 0
    run = embedded.reaches("logged", RunStatus.APPLYING)

    with embedded.program.start("logs", "--follow", run.run_id) as following:
        eventually(lambda: "Creating..." in following.stdout.readline())
        decide.cancel(embedded.system, run.run_id, force=True)
        _, err = following.communicate(timeout=30)
    assert (following.returncode, err) == (0, f"Run {run.run_id} is cancelled.\n")


class Terminal:
    """A terminal with a program on it."""

    def __init__(self, program: Any, *arguments: str) -> None:
        self.device, theirs = pty.openpty()
        self.process: Popen[str] = program.start(*arguments, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self.seen = ""

    def until(self, words: str) -> None:
        while words not in self.seen:
            try:
                self.seen += os.read(self.device, 4096).decode()
            except OSError:  # how a terminal says that nobody is on it any more
                pytest.fail(f"The program ended before it said {words!r}: {self.seen}")

    def until_it_waits(self) -> None:
        """Wait until the program does: a signal that comes just before is looked at with the next key only."""
        eventually(lambda: psutil.Process(self.process.pid).status() == psutil.STATUS_SLEEPING)

    def type(self, answer: str) -> None:
        os.write(self.device, f"{answer}\n".encode())

    def close(self) -> None:
        self.process.wait(timeout=30)
        os.close(self.device)


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [("yes", RunStatus.SUCCEEDED, 0), ("no", RunStatus.DISCARDED, 1), ("later", RunStatus.APPLY_PENDING, 3)],
)
def test_on_a_terminal_a_person_is_asked_after_the_changes_were_shown(embedded, answer, status, code) -> None:
    embedded.workspace(answer, ONE)
    with closing(Terminal(embedded.program, "apply", answer)) as terminal:
        terminal.until("Apply this plan?")
        assert "Plan: 1 to add" in terminal.seen
        assert "+ create terraform_data.one" in terminal.seen
        terminal.type("what?")
        terminal.until("what?")
        terminal.type(answer)
        terminal.until(str(status).replace("apply_pending", "waits for a confirmation:"))
    assert (terminal.process.returncode, embedded.latest(answer).status) == (code, status)


GATED = """
resource "terraform_data" "quick" {}
resource "terraform_data" "slow" {
  depends_on = [terraform_data.quick]
  provisioner "local-exec" { command = "until [ -e GATE ]; do sleep 0.05; done" }
}
"""


def test_on_a_terminal_an_apply_shows_how_far_it_is_and_so_does_show(embedded, cli, tmp_path) -> None:
    name = embedded.workspace("gated", GATED.replace("GATE", str(tmp_path / "gate")))
    with closing(Terminal(embedded.program, "apply", name, "--yes")) as terminal:
        terminal.until("gated: applying 1/2  terraform_data.slow creating ")
        run = embedded.latest(name)
        shown = cli("show", run.run_id)
        told = cli("show", run.run_id, "--json").json["progress"]
        (tmp_path / "gate").touch()
        terminal.until("2 added")
    assert "1/2 done, 1 under way" in shown.out
    assert "  terraform_data.slow creating " in shown.out
    assert "  terraform_data.quick created in 0s" in shown.out
    assert (told["live"], told["phase"], told["step"], told["planned"]) == (True, "apply", "apply", 2)
    assert [(each["address"], each["state"]) for each in told["resources"]] == [
        ("terraform_data.slow", "working"), ("terraform_data.quick", "done")
    ]  # fmt: skip
    after = cli("show", run.run_id)
    assert "2/2 done" in after.out
    assert "  terraform_data.slow created in " in after.out


def test_without_a_terminal_an_apply_tells_its_phases_alone(embedded, tmp_path) -> None:
    name = embedded.workspace("told", GATED.replace("GATE", str(tmp_path / "gate")))
    with embedded.program.start("apply", name, "--yes") as following:
        run = embedded.reaches(name, RunStatus.APPLYING)
        eventually(lambda: progress.live(embedded.system, run))
        (tmp_path / "gate").touch()
        out, _ = following.communicate(timeout=30)
    assert "told: applying on default-" in out
    assert "1/2" not in out


def test_ctrl_c_before_the_answer_leaves_the_plan_waiting_and_says_how_to_confirm_it(embedded) -> None:
    embedded.workspace("unanswered", ONE)
    with closing(Terminal(embedded.program, "apply", "unanswered")) as terminal:
        terminal.until("Apply this plan?")
        terminal.until_it_waits()
        terminal.process.send_signal(signal.SIGINT)
        terminal.until("shows its plan and applies it")
    run = embedded.latest("unanswered")
    assert (terminal.process.returncode, run.status) == (130, RunStatus.APPLY_PENDING)
    assert f"`terraslot confirm {run.run_id}`" in terminal.seen


def test_down_says_which_waiting_plans_it_would_give_up_and_asks(embedded, cli) -> None:
    name = embedded.workspace("kept", ONE)
    assert cli("apply", name).code == 3
    run = embedded.reaches(name, RunStatus.APPLY_PENDING)
    refused = cli("down")
    assert (refused.code, f"Run {run.run_id} of workspace kept waits" in refused.out) == (2, True)
    assert "say --yes: there is nobody to ask" in refused.err
    with closing(Terminal(embedded.program, "down")) as terminal:
        terminal.until("plans those runs anew. Stop?")
        terminal.type("no")
        terminal.until("Aborted")
    assert (terminal.process.returncode, embedded.latest(name)) == (1, run)


def test_the_doctor_finds_nothing_wrong_with_a_running_system(embedded, cli, monkeypatch) -> None:
    monkeypatch.delenv("TF_CLI_CONFIG_FILE", raising=False)
    answer = cli("doctor --json")
    assert answer.code == 0
    assert {finding["name"]: finding["verdict"] for finding in answer.json} == dict.fromkeys(
        ["python", "git", "settings", "terraform", "redis", "database", "users", "clocks", "workers", "agents"], "ok"
    )


def test_a_second_system_under_the_same_home_is_refused(embedded, cli) -> None:
    refused = cli("up")
    assert refused.code == 1
    assert "terraslot down" in refused.err
