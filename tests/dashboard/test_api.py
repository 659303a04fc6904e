"""The HTTP API on a live system: what it answers, who may ask, and what it refuses."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta

import pytest

from tests.dashboard.conftest import Client, Live
from tests.waiting import eventually
from workers.core.access import Scope
from workers.core.lifecycle import RunStatus
from workers.services.secrets import tokens

CHANGES = 'resource "terraform_data" "one" {}\noutput "hello" { value = "world" }\n'
EVERYTHING = tuple(Scope)


@pytest.fixture(scope="module", autouse=True)
def _workspaces(live: Live) -> None:
    live.workspace("api", CHANGES)
    live.workspace("guarded", CHANGES, approval={"four_eyes": True})


def program(live: Live, *scopes: Scope) -> Client:
    """A program with a token of its own."""
    token, _ = tokens.create(live.system, f"test-{uuid.uuid4().hex[:8]}", scopes, timedelta(hours=1))
    return live.nobody.token(token)


def test_a_run_is_enqueued_watched_confirmed_and_on_record_with_who_did_it(live: Live) -> None:
    ci = program(live, Scope.READ, Scope.RUN)
    answer = ci.post("/runs", workspace="api", kind="plan_and_apply", message="new resource")
    assert answer.status == 201, answer
    run = answer.json["run_id"]
    assert answer.headers["Location"].endswith(f"/api/v1/runs/{run}")
    live.reaches(run, "apply_pending")

    plan = ci.get(f"/runs/{run}/plan").json
    assert [resource["address"] for resource in plan["plan"]["resources"]] == ["terraform_data.one"]
    confirmed = live.ada.post(f"/runs/{run}/confirm", attempt=plan["attempt"], message="looks right")
    assert (confirmed.status, confirmed.json["status"]) == (200, "applying"), confirmed
    assert live.reaches(run, "succeeded")["outputs"]["hello"] == "world"
    progress = ci.get(f"/runs/{run}/progress").json["progress"]
    assert (progress["live"], progress["planned"], progress["done"]) == (False, 1, 1)
    assert [(each["address"], each["state"]) for each in progress["resources"]] == [("terraform_data.one", "done")]

    events = ci.get(f"/runs/{run}/events").json
    who = {event["event"]: event["detail"].get("actor") for event in events}
    assert (who["submitted"].startswith("token:test-"), who["confirmed"]) == (True, "ada")
    lines = [json.loads(line) for line in ci.get(f"/runs/{run}/log?follow=true").text.splitlines()]
    assert any("Apply complete!" in line["text"] for line in lines)
    applied = [json.loads(line) for line in ci.get(f"/runs/{run}/log?phase=apply&attempt=1").text.splitlines()]
    assert {line["phase"] for line in applied} == {"apply"}


def test_a_repeated_request_enqueues_nothing_again(live: Live) -> None:
    key = f"key-{uuid.uuid4()}"
    ci = program(live, *EVERYTHING).with_headers(Idempotency_Key=key)
    first = ci.post("/runs", workspace="api", kind="plan")
    assert (first.status, first.json["run_id"]) == (201, key)
    again = ci.post("/runs", workspace="api", kind="plan")
    assert (again.status, again.json["run_id"]) == (200, key)
    assert "another run" in ci.post("/runs", workspace="guarded", kind="plan").problem
    assert "another run" in ci.post("/runs", workspace="api", kind="plan_and_apply").problem
    wrong = ci.with_headers(Idempotency_Key="../x").post("/runs", workspace="api", kind="plan")
    assert (wrong.status, "becomes the run's id" in wrong.problem) == (422, True)


def test_a_decision_that_comes_too_late_or_about_another_plan_is_a_conflict(live: Live) -> None:
    ci = program(live, *EVERYTHING)
    run = ci.post("/runs", workspace="api", kind="plan_and_apply", destroy=True).json["run_id"]
    live.reaches(run, "apply_pending")
    other = ci.post(f"/runs/{run}/confirm", attempt=2)
    assert (other.status, "attempt" in other.problem) == (409, True)
    later = ci.post(f"/runs/{run}/extend", seconds=3600)
    assert later.status == 200, later
    assert ci.post(f"/runs/{run}/discard", message="not now").json["status"] == "discarded"
    for verb, body in (("confirm", {"attempt": 1}), ("discard", {}), ("cancel", {})):
        assert ci.post(f"/runs/{run}/{verb}", **body).status == 409
        assert ci.post(f"/runs/{run[:-1]}/{verb}", **body).status == 404, "a part of an id is none"


def test_the_approval_that_a_workspace_requires_is_required_here_too(live: Live) -> None:
    run = live.ada.post("/runs", workspace="guarded", kind="plan_and_apply").json["run_id"]
    live.reaches(run, "apply_pending")
    assert live.ada.get(f"/runs/{run}").json["approval"] == "1 of 1 needed, of anybody but ada"
    shown = {each["action"]: each["why"] for each in live.ada.get(f"/runs/{run}").json["actions"]}
    own = live.ada.post(f"/runs/{run}/confirm", attempt=1)
    assert (own.problem, shown["discard"]) == (shown["confirm"], None)
    viewer = program(live, Scope.READ).get(f"/runs/{run}").json["actions"]
    assert {each["why"] for each in viewer} >= {"This needs the scope decide: its scopes are read."}
    assert (own.status, "ada has asked for it" in own.problem) == (403, True)
    assert live.bob.post(f"/runs/{run}/confirm", attempt=1).status == 200
    live.reaches(run, "succeeded")


def test_what_is_listed_can_be_chosen_and_paged_through(live: Live) -> None:
    for text in ("first of three", "second of THREE", "third of three"):
        assert live.bob.post("/runs", workspace="api", kind="plan", message=text).status == 201

    def listed(query: str) -> list[str]:
        answer = live.ada.get(f"/runs?{query}").json
        return [run["message"] for run in answer["runs"]]

    assert listed("text=OF%20three&limit=2") == ["third of three", "second of THREE"]
    before = live.ada.get("/runs?text=of%20three&limit=2").json["before"]
    assert listed(f"text=of%20three&limit=2&before={before}") == ["first of three"]
    assert listed("text=of%20three&actor=bob&kind=plan&workspace=api&pool=default") != []
    assert listed("text=of%20three&actor=ada") == listed("text=o_%20three") == []
    assert listed("text=of%20three&status=failed&status=cancelled") == []
    eventually(lambda: len(listed("text=of%20three&status=succeeded&status=failed")) == 3)


def test_pools_workspaces_and_slots_are_shown(live: Live) -> None:
    ada = live.ada
    assert "default" in [pool["name"] for pool in ada.get("/pools").json]
    assert ada.get("/pools/default").json["limits"]["max_agents"]
    assert ada.get("/workspaces/guarded").json["approval"]["four_eyes"] is True
    listed = ada.get("/workspaces?pool=default").json["workspaces"]
    assert {"api", "guarded"} <= {workspace["name"] for workspace in listed}
    seen = ada.get("/workspaces/guarded/overview").json
    assert (seen["workspace"]["name"], seen["problem"]) == ("guarded", None)
    slots = ada.get("/slots").json[0]
    assert {"pool", "slots", "pending", "size_reason", "starting", "agents"} == set(slots)
    assert slots["size_reason"] == ada.get("/pools/default").json["size_reason"]


def test_a_pool_is_shown_over_time_with_what_was_decided_about_its_size(live: Live) -> None:
    live.ada.post("/runs", workspace="api", kind="plan")
    seen = eventually(lambda: (found := live.ada.get("/pools/default/history").json)["samples"] and found)
    assert max(sample["ready"] + sample["starting"] for sample in seen["samples"]) >= 1
    assert seen["decisions"][-1]["facts"]["pending_plans"] + seen["decisions"][-1]["facts"]["pending_applies"] >= 1
    pages = live.ada.get("/pools/default/decisions?limit=1").json
    assert pages["decisions"][0]["id"] == pages["before"]
    wrong = live.ada.get("/pools/default/history?since=2026-01-01T00:00:00")
    assert (wrong.status, "since" in wrong.problem) == (422, True)
    assert live.ada.get("/pools/nowhere/history").status == live.ada.get("/pools/nowhere/decisions").status == 404


@pytest.mark.parametrize("path", ["/runs/nowhere", "/pools/nowhere", "/workspaces/nowhere", "/runs/nowhere/log", "/x"])
def test_what_is_not_there_is_a_problem_that_names_it(live: Live, path: str) -> None:
    answer = live.ada.get(path)
    assert answer.status == 404
    assert "'nowhere'" in answer.problem or "/x" in answer.problem


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"workspace": "api", "kind": "apply"}, "kind"),
        ({"workspace": "api"}, "kind is not set"),
        ({"workspace": "api", "kind": "plan", "targets": ["--lock=false"]}, "no address"),
        ({"workspace": "api", "kind": "plan", "wish": 1}, "wish"),
        ({"workspace": "../etc", "kind": "plan"}, "lower-case letters"),
        ({"workspace": "api", "kind": "plan", "encrypted_variables": "nonsense"}, "variables"),
    ],
)
def test_an_invalid_request_is_refused_with_what_is_wrong(live: Live, body: dict[str, object], says: str) -> None:
    answer = live.ada.post("/runs", **body)
    assert (answer.status, says in answer.problem) == (422, True), answer


def test_what_is_no_json_document_is_refused(live: Live) -> None:
    ada = live.ada.with_headers(Content_Type="application/json")
    assert ada.ask("POST", "/runs", "{").status == 400
    assert ada.ask("POST", "/runs", "[" * 100_000).status in (400, 413)
    assert ada.ask("POST", "/runs", "x" * 300_000).status == 413
    assert live.ada.with_headers(Content_Type="text/plain").ask("POST", "/runs", "{}").status == 415
    refused = live.ada.ask("DELETE", "/runs")
    assert refused.status == 405


class TestWhoMayAsk:
    def test_and_is_told_what_they_may(self, live: Live) -> None:
        assert live.ada.get("/me").json == {"actor": "ada", "scopes": ["read", "run", "decide"], "refusal": None}
        viewer = program(live, Scope.READ).get("/me").json
        assert (viewer["scopes"], viewer["refusal"]) == (["read"], "its scopes are read")
        assert live.nobody.get("/me").status == 401

    def test_nobody_who_is_not_known(self, live: Live) -> None:
        for client in (live.nobody, live.nobody.token("terraslot_guess"), live.nobody.token("")):
            for answer in (client.get("/runs"), client.post("/runs", workspace="api", kind="plan")):
                assert (answer.status, "Sign in" in answer.problem) == (401, True)
        wrong = live.nobody.with_headers(Authorization="Basic YWRhOndyb25n")
        assert wrong.get("/runs").status == 401

    def test_a_token_for_no_more_than_its_scopes(self, live: Live) -> None:
        reader, runner = program(live, Scope.READ), program(live, Scope.RUN)
        refused = reader.post("/runs", workspace="api", kind="plan")
        assert (refused.status, refused.problem) == (403, "This needs the scope run: its scopes are read.")
        assert (reader.get("/runs").status, runner.get("/runs").status) == (200, 403)
        run = runner.post("/runs", workspace="api", kind="plan").json["run_id"]
        assert runner.post(f"/runs/{run}/cancel").status == reader.post(f"/runs/{run}/cancel").status == 403

    def test_no_run_that_confirms_itself_by_one_who_may_not_decide(self, live: Live) -> None:
        runner = program(live, Scope.READ, Scope.RUN)
        refused = runner.post("/runs", workspace="api", kind="plan_and_apply", auto_apply=True, message="sneaky")
        assert (refused.status, refused.problem) == (403, "This needs the scope decide: its scopes are read, run.")
        assert live.ada.get("/runs?text=sneaky").json["runs"] == []

    def test_no_revoked_token(self, live: Live) -> None:
        name = f"test-{uuid.uuid4().hex[:8]}"
        token, _ = tokens.create(live.system, name, EVERYTHING, timedelta(hours=1))
        client = live.nobody.token(token)
        assert client.get("/runs").status == 200
        tokens.revoke(live.system, name)
        assert client.get("/runs").status == 401

    @pytest.mark.parametrize(
        "headers",
        [{"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}, {"Origin": "https://evil.example"}],
    )
    def test_no_page_of_another_site(self, live: Live, headers: dict[str, str]) -> None:
        answer = live.ada.with_headers(**headers).post("/runs", workspace="api", kind="plan", message="foreign")
        assert (answer.status, "another site" in answer.problem) == (403, True)
        assert live.ada.get("/runs?text=foreign").json["runs"] == []
        own = live.ada.with_headers(Sec_Fetch_Site="same-origin", Origin=f"http://127.0.0.1:{live.port}")
        assert own.post("/runs", workspace="api", kind="plan").status == 201


def test_statuses_in_the_description_are_the_statuses_of_runs(live: Live) -> None:
    described = live.nobody.get("/openapi.json").json
    assert described["openapi"] == "3.1.0"
    assert described["components"]["schemas"]["RunStatus"]["enum"] == [status.value for status in RunStatus]
