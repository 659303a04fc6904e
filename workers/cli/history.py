"""``runs``, ``show``: what is on record. Neither Celery nor Redis is loaded, so that looking is quick."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from workers.cli.console import cell, console, say, show_json, show_table, table
from workers.cli.options import AsJson, OfPool, OfWorkspace, RunId, Watch
from workers.cli.outcome import STYLES, changes, destruction, options, tell_outputs
from workers.cli.plan import tell_plan
from workers.cli.progress import summary, tell_progress
from workers.cli.watch import watch
from workers.core.lifecycle import EXECUTING, RunStatus
from workers.protocol.kinds import RunKind
from workers.services.formatting import ago
from workers.services.runs import progress
from workers.services.runs import views as run_views
from workers.services.runs.progress import ProgressView
from workers.services.runs.views import EventView, RunFilter, RunView
from workers.settings import settings
from workers.store.database import Database

if TYPE_CHECKING:
    from workers.services.runs.locks import LockView
    from workers.services.system import System

app = typer.Typer()
Answer = TypeVar("Answer")

_SHORT = 8
_NOT_SAID = ("actor", "clock")  # of an event's detail
_STATUS = f"Only runs in this status, one of {', '.join(RunStatus)}; may be repeated."


@cache
def database() -> Database:
    """Return the database of this process, without the rest of the system."""
    return Database(settings().database)


@app.command()
def runs(
    workspace: OfWorkspace = None,
    pool: OfPool = None,
    *,
    status: Annotated[list[RunStatus] | None, typer.Option(metavar="STATUS", help=_STATUS)] = None,
    kind: Annotated[RunKind | None, typer.Option(help="Only runs of this kind.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only runs that this person or program has asked for.")] = None,
    text: Annotated[
        str | None, typer.Option(help="Only runs with this in their id, workspace, message or error.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 20,
    again: Watch = False,
    as_json: AsJson = False,
) -> None:
    """List the latest runs, newest first. As JSON with --watch: one document a line."""
    wanted = RunFilter(workspace, pool, frozenset(status) if status else None, kind, actor, text)

    def look() -> Any:
        found = _with_reasons(run_views.recent(database(), wanted, limit=limit))
        return found if as_json else _listed(found)

    if again:
        watch(look, as_json=as_json)
    else:
        show_json(look()) if as_json else console().print(look())


@app.command()
def show(
    run: RunId,
    plan: Annotated[bool, typer.Option("--plan", help="Only what its plan does with each resource.")] = False,
    events: Annotated[
        bool, typer.Option("--events", help="Only what happened to it, who asked for it, and why.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a run: where it stands, its changes, outputs and error, and what happened to it."""
    found = run_views.one(database(), run)
    if plan:
        _show_plan(found, as_json=as_json)
        return
    happened = run_views.events(database(), found)
    if events:
        show_json(happened) if as_json else _tell_events(happened)
        return
    found = _waiting(found)
    come = _progress(found)
    approval = run_views.approval(database(), found)
    of_state = {
        "rescued_state": run_views.rescued(database(), found),
        "state_lock": _lock(found),
        "unsaved_state": run_views.unsaved(database(), found),
    }
    if as_json:
        show_json(asdict(found) | {"approval": approval, "progress": come} | of_state | {"events": happened})
        return
    console().print(_facts(found, approval, come, of_state))
    if come:
        tell_progress(come, datetime.now(UTC))
    if found.error:
        say(f"\n{found.error.strip()}", style="red")
    tell_outputs(found)
    say("")
    _tell_events(happened)


def _show_plan(run: RunView, *, as_json: bool) -> None:
    detail = run_views.plan(database(), run)
    if as_json:
        show_json(asdict(run) | {"plan": detail})
    else:
        tell_plan(run, detail, at_most=sys.maxsize, attributes=True)


def _listed(found: list[RunView]) -> RenderableType:
    if not found:
        return Text("No runs.")
    length, now = _length([run.run_id for run in found]), datetime.now(UTC)
    columns = ("RUN", "WORKSPACE", "KIND", "STATUS", "CHANGES", "AGE", "AGENT OR WAIT")
    return table(columns, (_row(run, length, now) for run in found))


def _row(run: RunView, length: int, now: datetime) -> tuple[object, ...]:
    status = cell(run.status, STYLES.get(run.status, ""))
    kind = "plan" if run.kind is RunKind.PLAN else "apply"
    where = run.waiting or (f"{run.agent}/{run.slot}" if run.agent else None)
    return run.run_id[:length], run.workspace, kind, status, _brief_changes(run), ago(run.created_at, now), where


def _length(ids: Collection[str]) -> int:
    """Return how many characters tell all of these apart."""
    longest = max(map(len, ids), default=_SHORT)
    return next((size for size in range(_SHORT, longest) if len({name[:size] for name in ids}) == len(ids)), longest)


def _brief_changes(run: RunView) -> Text | None:
    if run.changes["add"] is None:
        return None
    brief = f"+{run.changes['add']} ~{run.changes['change']} -{run.changes['destroy']}"
    return cell(f"{brief} destroys", "bold red") if run.plan_destroys else cell(brief)


def _facts(run: RunView, approval: str | None, come: ProgressView | None, of_state: dict[str, Any]) -> Table:
    made = Table.grid(padding=(0, 2))
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    facts: dict[str, Any] = {
        "Run": run.run_id,
        "Workspace": run.workspace,
        "Pool": run.pool,
        "Kind": run.kind,
        "Options": "\n".join(options(run)),
        "Message": run.message,
        "Asked by": run.actor,
        "Status": f"{run.status} ({run.reason})" if run.reason else run.status,
        "Changes": changes(run),
        "Warning": destruction(run),
        "Progress": come and summary(come),
        "Agent": f"{run.agent}, slot {run.slot}" if run.agent else None,
        "Program": f"{run.program or 'not chosen yet'}, for {run.terraform}" if run.terraform else run.program,
        "Commit": run.commit,
        "Attempt": run.attempt,
        "Created": _moment(run.created_at),
        "Finished": _moment(run.finished_at),
        "Confirm until": _moment(run.confirm_until),
        "Approvals": approval,
        "Waiting": run.waiting,
    }
    lock: LockView | None = of_state["state_lock"]
    facts |= {"Rescued state": of_state["rescued_state"], "State lock": lock and f"{lock.id}: {lock.said}"}
    facts["Unsaved state"] = of_state["unsaved_state"]
    if run.cancel_requested and not run.status.is_over:
        facts["Cancel"] = "asked for"
    styles = {"Status": STYLES.get(run.status, ""), "Warning": "bold red", "Unsaved state": "bold red"}
    for name, value in facts.items():
        if value not in (None, ""):
            made.add_row(name, cell(value, styles.get(name, "")))
    return made


def _tell_events(events: list[EventView]) -> None:
    show_table(("AT", "EVENT", "STATUS", "WHO", "DETAIL"), map(_happened, events))


def _happened(event: EventView) -> tuple[object, ...]:
    said = {name: value for name, value in event.detail.items() if name not in _NOT_SAID}
    detail = ", ".join(f"{name}={value}" for name, value in said.items() if value is not None)
    return _moment(event.at), event.event, event.status, event.detail.get("actor"), detail


def _lock(run: RunView) -> LockView | None:
    """Return the lock that a run has met."""
    if not run_views.has_met_lock(database(), run):
        return None
    # Only such a run is worth the time that this takes to load.
    from workers.services.runs import locks  # noqa: PLC0415

    return _if_reachable(lambda system: locks.shown(system, run.run_id))


def _with_reasons(found: list[RunView]) -> list[RunView]:
    """Add to pending runs what they wait for."""
    if all(run.status is not RunStatus.PENDING for run in found):
        return found
    # Only a run that waits is worth the time that this takes to load.
    from workers.services.runs import waiting  # noqa: PLC0415

    return _if_reachable(lambda system: waiting.with_reasons(system, found)) or found


def _waiting(run: RunView) -> RunView:
    """Add to a run that is not over what it waits for, beside a person and Terraform."""
    if run.status.is_over:
        return run
    from workers.services.runs import waiting  # noqa: PLC0415 - as above

    return _if_reachable(lambda system: waiting.with_reason(system, run)) or run


def _progress(run: RunView) -> ProgressView | None:
    """Return how far a run's phase has come, or what its apply has done."""
    if run.status in EXECUTING:
        return _if_reachable(lambda system: progress.live(system, run))
    return progress.stored(database(), run)


def _if_reachable(ask: Callable[[System], Answer]) -> Answer | None:
    """Ask the rest of the system; None where it does not answer: the database says the rest."""
    from workers.cli.system import system  # noqa: PLC0415
    from workers.services.errors import user_message  # noqa: PLC0415

    try:
        return ask(system())
    except Exception as error:
        if user_message(error) is None:
            raise
        return None


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
