"""A live system that exports to a collector: one trace of a run, and nobody else sees where it goes."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from http import HTTPStatus
from itertools import pairwise

import psutil

from tests.dashboard.conftest import COLLECTORS_KEY, PROGRAM, Live
from tests.otlp import Collector, Span
from tests.waiting import eventually
from workers.protocol import names

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TELLS_ALL = """
resource "terraform_data" "tells" {
  provisioner "local-exec" { command = "env" }
}
"""
STEPS = [
    "run",
    "submit", "wait for slot", "dispatch", "order", "plan", "report", "wait for confirmation", "apply", "deliver",
]  # fmt: skip


def spans(traced: Collector, run: str) -> dict[str, list[Span]]:
    """The spans of a run that is over, by name."""
    return eventually(lambda: (found := traced.of(run)).keys() >= {"run", "submit", "deliver", "report"} and found)


def test_a_run_is_one_trace_from_its_caller_to_its_delivery_however_many_processes_handle_it(
    live: Live, traced: Collector
) -> None:
    live.workspace("traced")
    asking = live.ada.with_headers(traceparent=CALLER)
    run = asking.post("/runs", workspace="traced", kind="plan_and_apply").json["run_id"]
    live.reaches(run, "apply_pending")
    assert live.bob.post(f"/runs/{run}/confirm", attempt=1).status == 200
    done = live.reaches(run, "succeeded")

    twice = ("dispatch", "order", "report")  # for the plan, then for the apply; each process sends its own, in its time
    found = eventually(
        lambda: (
            (all_ := spans(traced, run)).keys() == set(STEPS) and all(len(all_[name]) == 2 for name in twice) and all_
        )
    )
    everything = [span for each in found.values() for span in each]
    assert {span.trace for span in everything} == {CALLER[3:35]}
    [root] = found["run"]
    assert root.parent == CALLER[36:52]
    assert {span.parent for span in everything if span is not root} == {root.id}
    assert [span.error for span in everything if span.error] == []
    assert root.about["terraslot.outcome"] == "succeeded"
    for name in twice:
        in_order = sorted(found[name], key=lambda span: span.began)
        assert [span.about["terraslot.phase"] for span in in_order] == ["plan", "apply"]
    where = {"workspace": "traced", "pool": "default", "agent": done["agent"], "slot": done["slot"], "attempt": 1}
    for phase in ("plan", "apply"):
        [span] = found[phase]
        about = {**where, "run": run, "phase": phase, "outcome": "succeeded"}
        assert span.about == {f"terraslot.{name}": value for name, value in about.items()}
    way = [
        found["submit"][0], found["plan"][0], found["wait for confirmation"][0], found["apply"][0], found["deliver"][0],
    ]  # fmt: skip
    assert all(before.began <= after.began for before, after in pairwise(way))
    assert root.began <= way[0].ended
    assert root.ended >= way[-1].began
    assert {each["authorization"] for each in traced.headers} == {COLLECTORS_KEY}


def test_a_callers_trace_comes_in_the_header_of_a_celery_task_and_what_is_none_begins_another(
    live: Live, traced: Collector
) -> None:
    live.workspace("called")
    given = {uuid.uuid4().hex: header for header in (CALLER, "00-zzz", "x" * 100_000)}
    for run, header in given.items():
        live.system.celery.send_task(
            names.PLAN, kwargs={"workspace": "called"}, task_id=run, headers={names.TRACE_HEADER: header}
        )
    for run in given:
        eventually(lambda run=run: live.ada.get(f"/runs/{run}").status == HTTPStatus.OK)
        live.reaches(run, "succeeded")

    traces = [spans(traced, run)["run"][0].trace for run in given]
    assert traces[0] == CALLER[3:35]
    assert len(set(traces)) == 3


def test_a_command_line_in_a_trace_of_a_ci_system_has_its_run_join_that(live: Live, traced: Collector) -> None:
    live.workspace("built")
    environment = os.environ | {"TERRASLOT_HOME": str(live.home), "TRACEPARENT": CALLER}
    done = subprocess.run([PROGRAM, "plan", "built", "--json"], env=environment, capture_output=True, check=True)

    run = json.loads(done.stdout)["run_id"]
    assert spans(traced, run)["run"][0].trace == CALLER[3:35]


def test_a_run_that_fails_says_so_in_its_trace_and_nothing_that_terraform_has_said(
    live: Live, traced: Collector
) -> None:
    live.workspace("broken", 'output "x" { value = file("no-such-s3cret-file") }')
    run = live.ada.post("/runs", workspace="broken", kind="plan").json["run_id"]
    live.reaches(run, "failed")

    found = spans(traced, run)
    assert [span.error for span in (*found["plan"], *found["run"])] == ["terraform_failed"] * 2
    assert "s3cret" not in repr(found)


def test_lines_of_the_log_name_the_trace(live: Live) -> None:
    live.workspace("correlated")
    asking = live.ada.with_headers(traceparent=CALLER)
    run = asking.post("/runs", workspace="correlated", kind="plan").json["run_id"]
    live.reaches(run, "succeeded")

    def said() -> dict[str, str]:
        texts = [text for path in live.home.rglob("*.log") for text in path.read_text().splitlines() if run in text]
        read = [json.loads(text) for text in texts if text.startswith("{")]
        return {each["event"]: each.get("trace_id") for each in read if each.get("run") == run}

    found = eventually(lambda: (all_ := said()).keys() >= {"finished", "run over"} and all_)
    assert set(found.values()) == {CALLER[3:35]}, found


def test_neither_an_agent_nor_its_terraform_is_told_the_collectors_key_or_a_viewers_password(live: Live) -> None:
    live.workspace("nosy", TELLS_ALL)
    run = live.ada.post("/runs", workspace="nosy", kind="plan_and_apply", auto_apply=True).json["run_id"]
    live.reaches(run, "succeeded")

    log = live.ada.get(f"/runs/{run}/log").text
    assert "TF_INPUT" in log
    assert "OTEL_" not in log
    agents = [each for each in psutil.process_iter() if "TERRASLOT_AGENT" in _environment(each)]
    ours = [each for each in agents if str(live.home) in _environment(each)["TERRASLOT_WORK_DIR"]]
    assert ours
    for agent in ours:
        told = _environment(agent)
        assert not any(name.startswith(("OTEL_", "FLOWER_")) for name in told)
        assert not any(COLLECTORS_KEY in value for value in told.values())


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}
