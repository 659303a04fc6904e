"""What the API does: a function for each operation, and the table of all of them."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

from workers.core.access import Caller, Scope
from workers.core.errors import UnknownRun
from workers.core.lifecycle import RunStatus
from workers.dashboard.access import granted
from workers.dashboard.api.given import (
    Cancellation,
    Confirmation,
    DecisionQuery,
    Extension,
    HistoryQuery,
    LogQuery,
    NewRun,
    Reason,
    RunQuery,
    WorkspaceQuery,
)
from workers.dashboard.api.operation import Answered, Asked, Given, Operation
from workers.dashboard.api.problems import Refused
from workers.protocol import names
from workers.protocol.log_lines import LogLine
from workers.protocol.names import RUN_ID
from workers.protocol.plan_detail import PlanDetail
from workers.services import workspaces
from workers.services.pools import history as pool_history
from workers.services.pools import views as pool_views
from workers.services.pools.history import DecisionPage, PoolHistory
from workers.services.pools.views import PoolSlots, PoolView
from workers.services.runs import details, of_workspaces, progress, requests, waiting
from workers.services.runs import views as run_views
from workers.services.runs.details import RunDetails
from workers.services.runs.logs import LogReader
from workers.services.runs.of_workspaces import WorkspaceOverview, WorkspacePage
from workers.services.runs.progress import ProgressView
from workers.services.runs.requests import Decided
from workers.services.runs.submit import RunRequest
from workers.services.runs.views import EventView, RunFilter, RunView
from workers.specs.workspaces import WorkspaceSpec

# Seconds: until a run that no worker has taken is answered as accepted, and between two looks at a log that goes on.
_ENTERED_WITHIN, _LOOK = 5.0, 0.5


@dataclass(frozen=True)
class RunPage:
    """Runs, and what to ask with for the next page: ``before``; None at the end."""

    runs: list[RunView]
    before: str | None


@dataclass(frozen=True)
class Me:
    """Who asks, by which name, and for what that suffices; ``refusal``: why for no more."""

    actor: str | None
    scopes: list[Scope]
    refusal: str | None


@dataclass(frozen=True)
class Accepted:
    """A run that was asked for and that no worker has taken yet."""

    run_id: str


@dataclass(frozen=True)
class PlanOfRun:
    """What a run's plan does with each resource; None where there is no plan on record."""

    run_id: str
    attempt: int
    plan: PlanDetail | None


@dataclass(frozen=True)
class ProgressOfRun:
    """How far a run's phase has come, while it executes; or what its apply has done, once it is over.

    None where it waits, and where its agent did not say.
    """

    run_id: str
    attempt: int
    status: RunStatus
    progress: ProgressView | None


def _show_me(asked: Asked) -> Me:
    caller = asked.caller
    scopes = [scope for scope in Scope if scope in caller.scopes]
    name = caller.actor.name if caller.actor else None
    return Me(name, scopes, None if len(scopes) == len(Scope) else caller.refusal)


def _list_runs(asked: Asked) -> RunPage:
    query: RunQuery = asked.query
    wanted = RunFilter(
        query.workspace, query.pool, frozenset(query.status) or None, query.kind, query.actor, query.text, query.before
    )
    found = waiting.with_reasons(asked.system, run_views.recent(asked.system.database, wanted, limit=query.limit))
    return RunPage(found, found[-1].run_id if len(found) == query.limit else None)


def _submit(asked: Asked) -> Answered:
    run_id = asked.key or str(uuid.uuid4())
    if not RUN_ID.fullmatch(run_id):
        raise Refused(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "The Idempotency-Key becomes the run's id: up to 128 letters, digits, '_' and '-'.",
        )
    new: NewRun = asked.body
    if new.auto_apply:  # it confirms itself
        granted(asked.caller, Scope.DECIDE)
    if (before := run_views.by_id(asked.system.database, run_id)) is not None:
        return Answered(_same(before, new), HTTPStatus.OK)
    request = RunRequest.model_validate(new.model_dump(exclude={"kind"}))
    requests.enqueue(asked.system, new.kind, request, run_id, asked.caller.actor, trace=asked.trace)
    run = requests.entered(asked.system, run_id, _ENTERED_WITHIN)
    where = f"runs/{run_id}"
    if run is None:
        return Answered(Accepted(run_id), HTTPStatus.ACCEPTED, where)
    return Answered(_same(run, new), HTTPStatus.CREATED, where)


def _same(run: RunView, new: NewRun) -> RunView:
    """Return the run that has the id of a request, if it is the one that is asked for."""
    if (run.workspace, run.kind) != (new.workspace, new.kind):
        raise Refused(HTTPStatus.CONFLICT, f"The Idempotency-Key {run.run_id!r} was used for another run already.")
    return run


def _run(asked: Asked) -> RunView:
    """Return the run of exactly this id: a program writes it whole, and a part may be another's tomorrow."""
    if (run := run_views.by_id(asked.system.database, asked.named["run"])) is None:
        raise UnknownRun(f"No run has the id {asked.named['run']!r}.")
    return run


def _show_run(asked: Asked) -> RunDetails:
    return details.of(asked.system, _run(asked), asked.caller.actor, _undecided(asked.caller))


def _undecided(caller: Caller) -> str | None:
    """Say why somebody may decide about no run; None where they may."""
    try:
        granted(caller, Scope.DECIDE)
    except Refused as refused:
        return refused.problem.detail
    return None


def _show_events(asked: Asked) -> list[EventView]:
    return run_views.events(asked.system.database, _run(asked))


def _show_plan(asked: Asked) -> PlanOfRun:
    run = _run(asked)
    return PlanOfRun(run.run_id, run.attempt, run_views.plan(asked.system.database, run))


def _show_progress(asked: Asked) -> ProgressOfRun:
    run = _run(asked)
    return ProgressOfRun(run.run_id, run.attempt, run.status, progress.of(asked.system, run))


async def _read_log(asked: Asked) -> AsyncIterator[list[LogLine]]:
    query: LogQuery = asked.query
    run = await asyncio.to_thread(_run, asked)
    reader = LogReader(asked.system, run)
    while True:
        over = (await asyncio.to_thread(_run, asked)).status.is_over if query.follow else True
        while lines := await asyncio.to_thread(reader.read):
            yield [
                line for line in lines if query.phase in (None, line.phase) and query.attempt in (None, line.attempt)
            ]
        # Lines are written before the status changes: the last ones were there at this look.
        if over:
            return
        await asyncio.sleep(_LOOK)


def _decide(task: str, asked: Asked) -> Decided:
    given = asked.body.model_dump(exclude_none=True)
    return requests.decide(asked.system, task, _run(asked).run_id, asked.caller.actor, **given)


def _list_workspaces(asked: Asked) -> WorkspacePage:
    return of_workspaces.every(asked.system, **asked.query.model_dump())


def _show_overview(asked: Asked) -> WorkspaceOverview:
    return of_workspaces.one(asked.system, asked.named["workspace"])


def _show_workspace(asked: Asked) -> WorkspaceSpec:
    return workspaces.get(asked.system, asked.named["workspace"]).shown


def _list_pools(asked: Asked) -> list[PoolView]:
    return list(asked.pools.every())


def _show_pool(asked: Asked) -> PoolView:
    return pool_views.one(asked.system, asked.named["pool"])


def _show_history(asked: Asked) -> PoolHistory:
    return pool_history.of(asked.system, asked.named["pool"], asked.query.since, asked.query.until)


def _list_decisions(asked: Asked) -> DecisionPage:
    return pool_history.decided(asked.system, asked.named["pool"], asked.query.before, asked.query.limit)


def _list_slots(asked: Asked) -> list[PoolSlots]:
    return [pool_views.slots(pool) for pool in asked.pools.every()]


def _decision(task: str, verb: str, summary: str, body: type[Given]) -> Operation:
    return Operation(
        verb, "POST", f"/runs/{{run}}/{verb}", summary, Scope.DECIDE, partial(_decide, task), Decided, body=body,
        refusals=(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
    )  # fmt: skip


def _look(path: str, summary: str, do: Any, answer: Any, **more: Any) -> Operation:
    refusals = (HTTPStatus.NOT_FOUND,) if "{" in path or more.get("query") else ()
    return Operation(do.__name__.strip("_"), "GET", path, summary, Scope.READ, do, answer, refusals=refusals, **more)


OPERATIONS = (
    _look("/me", "Show who asks, and what they may do", _show_me, Me),
    _look("/runs", "List runs", _list_runs, RunPage, query=RunQuery),
    Operation(
        "submit", "POST", "/runs", "Enqueue a run", Scope.RUN, _submit, RunView, body=NewRun, status=HTTPStatus.CREATED,
        refusals=(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT), takes_key=True,
    ),
    _look("/runs/{run}", "Show a run", _show_run, RunDetails),
    _look("/runs/{run}/events", "List what happened to a run", _show_events, list[EventView]),
    _look("/runs/{run}/plan", "Show what a run's plan does with each resource", _show_plan, PlanOfRun),
    _look("/runs/{run}/progress", "Show how far a run's phase has come", _show_progress, ProgressOfRun),
    _look("/runs/{run}/log", "Read a run's log, a line a document", _read_log, LogLine, query=LogQuery, streams=True),
    _decision(names.CONFIRM, "confirm", "Let the plan of a waiting run be applied", Confirmation),
    _decision(names.DISCARD, "discard", "Refuse the plan of a waiting run", Reason),
    _decision(names.CANCEL, "cancel", "End a run", Cancellation),
    _decision(names.EXTEND, "extend", "Let the plan of a waiting run wait longer", Extension),
    _look("/workspaces", "List workspaces", _list_workspaces, WorkspacePage, query=WorkspaceQuery),
    _look("/workspaces/{workspace}", "Show a workspace's configuration", _show_workspace, WorkspaceSpec),
    _look("/workspaces/{workspace}/overview", "Show a workspace and its runs", _show_overview, WorkspaceOverview),
    _look("/pools", "List pools", _list_pools, list[PoolView]),
    _look("/pools/{pool}", "Show a pool", _show_pool, PoolView),
    _look("/pools/{pool}/history", "Show a pool over time", _show_history, PoolHistory, query=HistoryQuery),
    _look(
        "/pools/{pool}/decisions", "List what was decided about a pool's size", _list_decisions, DecisionPage,
        query=DecisionQuery,
    ),
    _look("/slots", "Show which run holds which slot", _list_slots, list[PoolSlots]),
)  # fmt: skip
