"""What commands show: for people as text, for programs as one JSON document."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
import redis

from workers.core.waiting import Outlook
from workers.protocol.kinds import FailureReason, RunKind
from workers.protocol.log_lines import LogLine
from workers.protocol.messages import Changes, PhaseFinished, PhaseStarted
from workers.protocol.plan_detail import PlanDetail
from workers.services.runs import decide, report, waiting
from workers.services.runs.logs import move_logs
from workers.slots.log_stream import RunLog
from workers.store import decisions
from workers.store import pools as stored_pools

APPLY = RunKind.PLAN_AND_APPLY
RUN_FIELDS = {
    "run_id", "workspace", "pool", "kind", "status", "priority", "auto_apply", "destroy", "changes", "outputs",
    "agent", "slot", "attempt", "commit", "reason", "error", "cancel_requested", "created_at", "started_at",
    "finished_at", "confirm_until", "options", "message", "actor", "plan_destroys",
    "terraform", "program", "waiting",
}  # fmt: skip


def finish_plan(control, run_id: str, **facts) -> None:
    """Let the agent of a run redeem its lease and report its plan."""
    lease = control.system.slots("default").find(run_id)
    assert control.system.slots("default").redeem(lease.agent, run_id, lease.token)
    about = {"pool": "default", "agent": lease.agent, "run": run_id, "token": lease.token, "phase": "plan"}
    report.take(control.system, PhaseStarted(**about))
    report.take(control.system, PhaseFinished(**about, **({"outcome": "succeeded"} | facts)))


@pytest.mark.parametrize("command", ["workspace list", "runs", "slots", "pool list", "pool show default", "doctor"])
def test_json_is_one_document_and_alone_on_stdout(control, cli, command) -> None:
    control.workspace()
    control.agent()
    control.submit()
    answer = cli(command, "--json")
    assert answer.json
    assert answer.err == ""


def test_a_workspace_is_shown_as_it_was_given(control, cli) -> None:
    code = control.home / "tree" / "modules"
    code.mkdir(parents=True)
    (code / "main.tf").touch()
    options = f"--path {code.parent} --subdir modules --auto-apply --env AWS_REGION=eu --confirm-timeout 600"
    created = cli(f"workspace create net {options} --var name=a=b", "--var", 'zones=["a","b"]')
    assert created.code == 0
    assert cli("workspace show net --json").json == {
        "name": "net",
        "pool": "default",
        "source": {"type": "directory", "path": str(code.parent), "subdir": "modules"},
        "variables": {"zones": ["a", "b"], "name": "a=b"},
        "environment": {"AWS_REGION": "eu"},
        "sensitive": [],
        "auto_apply": True,
        "confirm_timeout": 600,
        "approval": {"four_eyes": False, "approvals": 1, "names": []},
        "timeouts": {"plan": None, "apply": None},
        "terraform": None,
        "lock": None,
    }
    assert 'var zones = ["a", "b"]' in cli("workspace show net").out
    assert str(code.parent) in cli("workspace list").out


def test_an_update_changes_what_is_given_and_keeps_the_rest(control, cli) -> None:
    created = cli(
        "workspace create net --git https://git.example/net --ref v1 --subdir live --var a=1 --var b=2 --pool default"
    )
    assert created.code == 0
    assert cli("workspace update net --ref v2 --var a=3 --unset-var b --auto-apply").code == 0
    spec = cli("workspace show net --json").json
    assert spec["source"] == {
        "type": "git", "url": "https://git.example/net", "ref": "v2", "subdir": "live", "submodules": False,
    }  # fmt: skip
    assert (spec["variables"], spec["auto_apply"]) == ({"a": "3"}, True)


def test_a_required_version_is_given_changed_and_taken_back(control, cli) -> None:
    (control.home / "tree").mkdir()
    (control.home / "tree" / "main.tf").touch()
    created = cli(f"workspace create net --path {control.home / 'tree'}", "--terraform", "terraform  ~> 1.9")
    assert created.code == 0, created
    assert "terraform = terraform ~> 1.9" in cli("workspace show net").out
    assert cli("workspace update net --auto-apply").code == 0
    assert cli("workspace show net --json").json["terraform"] == "terraform ~> 1.9"
    assert cli("workspace update net --terraform", "").code == 0
    assert cli("workspace show net --json").json["terraform"] is None
    assert cli("pool update default --terraform", "tofu 1.10.x").code == 0
    assert "terraform = tofu 1.10.x" in cli("pool show default").out
    refused = cli("workspace update net --terraform", "terraform newest")
    assert refused.code == 2
    assert "'newest' is no version: write it as in terraform ~> 1.9" in " ".join(refused.err.split())


def test_a_deleted_workspace_leaves_its_runs_on_record(control, cli) -> None:
    control.workspace()
    decide.cancel(control.system, control.submit().id)
    assert cli("workspace delete net").code == 0
    assert cli("workspace list --json").json == []
    assert [run["workspace"] for run in cli("runs --workspace net --json").json] == ["net"]


def test_runs_are_listed_newest_first_and_by_workspace_and_status(control, cli) -> None:
    for workspace in ("net", "dns"):
        control.workspace(workspace)
    for number, workspace in enumerate(["net", "dns", "net"]):
        control.submit(workspace=workspace, run_id=f"r{number}")
    decide.cancel(control.system, "r0")
    assert [run["run_id"] for run in cli("runs --json").json] == ["r2", "r1", "r0"]
    assert [run["run_id"] for run in cli("runs --json -w net").json] == ["r2", "r0"]
    wanted = cli("runs --json --status cancelled --status failed").json
    assert [run["run_id"] for run in wanted] == ["r0"]
    assert [run["run_id"] for run in cli("runs --json --limit 1").json] == ["r2"]
    assert "cancelled" in cli("runs").out


def test_ids_are_cut_only_as_long_as_they_tell_runs_apart(control, cli) -> None:
    control.workspace()
    for name in ("long-name-of-a-run-1", "long-name-of-a-run-2"):
        control.submit(run_id=name)
    assert "long-name-of-a-run-2" in cli("runs").out
    decide.cancel(control.system, "long-name-of-a-run-1")
    assert "long-name-of-a-run-2" not in cli("runs --status pending").out


def test_the_fields_of_a_run_stay_as_they_are(control, cli) -> None:
    control.workspace()
    control.submit(run_id="run")
    control.agent()
    shown = cli("show run --json").json
    beside = {"approval", "events", "progress", "rescued_state", "state_lock", "unsaved_state"}
    assert set(shown) == RUN_FIELDS | beside
    assert [event["event"] for event in shown["events"]] == ["submitted", "dispatched"]
    assert set(shown["events"][0]) == {"at", "event", "status", "detail"}
    assert set(cli("runs --json").json[0]) == RUN_FIELDS
    assert datetime.fromisoformat(shown["created_at"]).tzinfo is not None


def test_a_run_is_shown_with_its_changes_place_outputs_and_history(control, cli) -> None:
    control.workspace()
    control.submit(APPLY, run_id="run")
    control.agent("default-7")
    finish_plan(control, "run", changed=True, changes=Changes(add=2, destroy=1), outputs={"url": "http://x"})
    shown = cli("show run").out
    for words in ("apply_pending", "2 to add, 0 to change, 1 to destroy", "default-7, slot 0", "url = http://x"):
        assert words in shown
    assert "plan started" in shown


PLAN = {
    "resources": [
        {"address": "a.old", "action": "delete"},
        {
            "address": 'a.web["x\n\x1b[2J"]', "action": "replace", "replace_paths": ["ami"], "create_first": True,
            "reason": "replace_because_cannot_update", "moved_from": "a.server", "attributes_left_out": 2,
            "attributes": [
                {"path": "ami", "before": "old\n\u202e", "after": "new"},
                {"path": "id", "before": "i-1", "unknown": True},
                {"path": "password", "before": "(sensitive)", "after": "(sensitive)", "sensitive": True},
                {"path": "user_data", "large": ["after"]},
            ],
        },
        {"address": "a.drifted", "action": "update", "drift": True},
    ],
    "left_out": {"create": 7},
}  # fmt: skip


def test_a_plan_that_destroys_is_marked_and_shown_destroys_first(control, cli) -> None:
    control.workspace()
    control.submit(APPLY, run_id="run")
    control.agent()
    plan = PlanDetail.model_validate(PLAN)
    finish_plan(control, "run", changed=True, changes=Changes(add=8, destroy=2), plan=plan)
    shown = cli("show run --plan").out
    assert shown.splitlines() == [
        "Plan of run run, workspace net: 8 to add, 0 to change, 2 to destroy.",
        "Its plan destroys 2 resources.",
        "    - destroy a.old",
        '  +/- replace a.web["x\ufffd\ufffd[2J"] (for ami; replace because cannot update; moved from a.server)',
        '        ami: "old\\n\ufffd" -> "new" (forces replacement)',
        '        id: "i-1" -> (known after apply)',
        "        password: (sensitive) -> (sensitive)",
        "        user_data: null -> (too long for the run's record)",
        "        … and 2 more: too much for the run's record",
        "    ~ changed outside of Terraform: a.drifted",
        "  … and 7 to create, which are too many for the run's record: its log has them",
    ]
    document = cli("show run --plan --json").json
    assert document["plan"] == plan.model_dump(mode="json")
    assert document["plan_destroys"] is True
    assert "+8 ~0 -2 destroys" in cli("runs").out
    assert "Its plan destroys 2 resources." in cli("show run").out


def test_a_plan_of_which_there_is_no_detail_says_so(control, cli) -> None:
    control.workspace()
    control.submit(run_id="run")
    assert "not planned yet" in cli("show run --plan").out
    control.agent()
    finish_plan(control, "run", changes=Changes(add=1))
    assert "version that reports none. `terraslot logs run`" in cli("show run --plan").out
    assert cli("show run --plan --json").json["plan"] is None
    assert "destroys" not in cli("runs").out + cli("show run").out


def test_a_failed_run_is_shown_with_its_reason_and_terraforms_words(control, cli) -> None:
    control.workspace()
    control.submit(run_id="run")
    control.agent()
    error = "Error: Unsupported block type\n\n  on main.tf line 1"
    finish_plan(control, "run", outcome="failed", reason=FailureReason.TERRAFORM_FAILED, error=error)
    shown = cli("show run")
    assert shown.code == 0
    assert "failed (terraform_failed)" in shown.out
    assert "not planned" in shown.out, "a plan that failed is none that changes nothing"
    assert cli("show run --json").json["changes"] == {"add": None, "change": None, "destroy": None}
    assert error in shown.out


def test_a_pending_run_says_what_it_waits_for(control, cli) -> None:
    control.workspace()
    control.submit(APPLY, run_id="first")
    assert "no agent accepts runs (first in line)" in cli("show first").out
    control.submit(APPLY, run_id="second")
    assert "other runs of the workspace come first (1 in front)" in cli("show second").out
    control.agent()
    assert "the workspace is busy with run first, planning (first in line)" in cli("show second").out
    control.workspace("dns")
    control.submit(APPLY, "dns", run_id="third")
    with control.system.database.begin() as session:
        outlook = Outlook(2, 1, "no node has room", control.system.now() + timedelta(minutes=1))
        stored_pools.observed(session, "default", None, outlook)
    waits = (
        "no apply slot is free (first in line); 2 pods are starting; the pool is at its maximum of 3 agents; "
        "no node has room"
    )
    assert waits in cli("show third").out
    listed = {run["run_id"]: run["waiting"] for run in cli("runs --json").json}
    assert (listed["third"], listed["first"]) == (waits, None)
    assert waits in cli("runs").out
    pool = cli("pool show default --json").json
    assert [run["waiting"] for run in pool["waiting"]] == [waits]
    assert pool["size_reason"].startswith("at its maximum of 3 agents, and ")


def test_what_runs_wait_for_is_left_out_where_redis_is_away(control, cli, monkeypatch: pytest.MonkeyPatch) -> None:
    control.workspace()
    control.submit(APPLY, run_id="run")

    def away(*_: object) -> None:
        raise redis.ConnectionError("refused")

    monkeypatch.setattr(waiting, "snapshots", away)
    for command in ("runs --json", "show run --json"):
        found = cli(command).json
        assert (found[0] if isinstance(found, list) else found)["waiting"] is None


def test_slots_show_who_holds_them(control, cli) -> None:
    control.workspace()
    control.agent("default-1")
    control.submit(run_id="planning-run")
    control.submit(APPLY, run_id="waiting-run")
    finish_plan(control, "waiting-run", changed=True)
    (pool,) = cli("slots --json").json
    (agent,) = pool["agents"]
    assert (agent["name"], agent["state"]) == ("default-1", "available")
    assert [slot["state"] for slot in agent["slots"]] == ["reserved", "running", "idle"]
    assert [slot["run_id"] for slot in agent["slots"]] == ["waiting-run", "planning-run", None]
    assert [slot["workspace"] for slot in agent["slots"]] == ["net", "net", None]
    counts = {"total": 3, "running": 1, "reserved": 1, "idle": 1, "free_plan": 1, "free_plan_and_apply": 0}
    assert pool["slots"] == counts
    text = cli("slots --pool default").out
    assert "net planning" in text
    assert "net apply_pending" in text


def test_agents_that_drain_are_shown_as_such(control, cli) -> None:
    control.agent("default-1")
    control.system.slots("default").drain("default-1")
    assert cli("slots --json").json[0]["agents"][0]["state"] == "draining"


def test_a_pool_is_shown_with_its_limits_and_last_decisions(control, cli) -> None:
    with control.system.database.begin() as session:
        now = datetime.now(UTC)
        decisions.record(session, "default", now, current=0, desired=1, reason="runs wait", facts={"ready": 0})
    pool = cli("pool show default --json").json
    assert pool["limits"]["max_agents"] == 3
    assert pool["decisions"][0]["facts"] == {"ready": 0}
    shown = cli("pool show default").out
    assert "max_agents = 3" in shown
    assert "0 -> 1" in shown
    assert "runs wait" in shown
    assert [(pool["name"], pool["agents"]) for pool in cli("pool list --json").json] == [("default", 0)]


def test_what_others_wrote_is_neither_markup_nor_obeyed_by_the_terminal(control, cli) -> None:
    control.workspace()
    run = control.submit(run_id="run")
    hostile = "[bold]b[/bold] [/] :smile: \x1b[2J\x1b]0;title\x07 \u202eevil\r done"
    RunLog(control.system.redis, run.pool, run.id).append([LogLine("plan", hostile, 0.0)])
    control.agent()
    finish_plan(control, "run", outcome="failed", reason=FailureReason.TERRAFORM_FAILED, error=hostile)
    for answer in (cli("logs run"), cli("show run")):
        assert "[bold]b[/bold] [/] :smile: " in answer.out
        assert not {"\x1b", "\x07", "\u202e", "\r"} & set(answer.out)
    assert "\x1b" not in cli("show run --json").out
    assert cli("show run --json").json["error"] == hostile


def test_a_log_is_printed_whole_and_as_json(control, cli) -> None:
    control.workspace()
    run = control.submit(run_id="run")
    lines = [LogLine("plan", f"line {number}", float(number)) for number in range(1500)]
    RunLog(control.system.redis, run.pool, run.id).append(lines)
    assert cli("logs run").out.splitlines() == [line.text for line in lines]
    as_json = cli("logs run --json").json
    assert [line["text"] for line in as_json] == [line.text for line in lines]
    assert set(as_json[0]) == {"phase", "text", "at", "id", "attempt", "number"}


def test_a_log_is_printed_by_phase_and_attempt_wherever_it_is(control, cli) -> None:
    control.workspace()
    run = control.submit(run_id="run")
    for attempt, phase in ((1, "plan"), (2, "plan"), (2, "apply")):
        log = RunLog(control.system.redis, run.pool, run.id, attempt=attempt)
        log.append([LogLine(phase, f"{phase} {attempt}", 0.0)])
        if phase == "plan":
            assert move_logs(control.system) == 1
    assert cli("logs run").out.splitlines() == ["plan 1", "plan 2", "apply 2"]
    assert cli("logs run --phase plan").out.splitlines() == ["plan 1", "plan 2"]
    assert cli("logs run --attempt 2").out.splitlines() == ["plan 2", "apply 2"]
    assert [line["text"] for line in cli("logs run --phase apply --attempt 2 --json").json] == ["apply 2"]
    assert "no log of these" in cli("logs run --attempt 3").err
    assert cli("logs run --attempt 0").code == cli("logs run --phase init").code == 2


def test_an_empty_log_says_so(control, cli) -> None:
    control.workspace()
    control.submit(run_id="run")
    answer = cli("logs run")
    assert (answer.code, answer.out) == (0, "")
    assert "no log" in answer.err
    assert cli("logs run --json").json == []


def test_looking_at_runs_loads_neither_celery_nor_redis_nor_the_other_dialect(control) -> None:
    """Starting takes most of the time of a command."""
    code = (
        "import contextlib, sys; from workers.cli.main import app\n"
        "with contextlib.suppress(SystemExit): app(['runs', '--json'])\n"
        "unwanted = {'celery', 'kombu', 'redis', 'flower', 'alembic', 'structlog', 'sqlalchemy.dialects.postgresql'}\n"
        "sys.exit(', '.join(unwanted & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == []


def test_an_apply_loads_nothing_only_because_it_is_installed(control) -> None:
    code = (
        "import contextlib, json, sys; from workers.cli.main import app\n"
        "with contextlib.suppress(SystemExit): app(['apply', 'nowhere', '--yes', '--json'])\n"
        "print(json.dumps(list(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "No workspace has the name 'nowhere'" in done.stdout
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert {"celery", "redis", "structlog"} <= loaded
    unwanted = {"alembic", "attr", "greenlet", "kubernetes", "opentelemetry", "pygments", "rich.traceback", "yaml"}
    assert unwanted & loaded == set()


def test_a_command_that_is_over_takes_nothing_apart(control) -> None:
    """Collecting what is left is a quarter of its time."""
    code = (
        "import atexit, gc; from workers.cli.main import main\n"
        "atexit.register(lambda: print(len(gc.get_objects()) < gc.get_freeze_count()))\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code, "runs"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("No runs.\nTrue\n", "")
