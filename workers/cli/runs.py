"""``plan``, ``apply``, ``confirm``, ``extend``, ``discard``, ``cancel``, ``logs``: enqueue, decide, follow."""

import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from signal import SIG_IGN, SIGINT, signal
from typing import Annotated, Any

import typer

from workers.cli.console import FAILURE, INTERRUPTED, LEFT_WAITING, is_interactive, say, show_json
from workers.cli.follow import Follower, Progress, is_over, waits_or_is_over
from workers.cli.options import (
    RUN_OPTIONS,
    AsJson,
    Destroy,
    Longer,
    Message,
    NoWait,
    Priority,
    RunId,
    WorkspaceName,
    variables,
    with_options,
)
from workers.cli.outcome import STYLES, exit_code, tell
from workers.cli.plan import SHOWN, look_at_plan, tell_plan
from workers.cli.sensitive import SENSITIVE, change
from workers.cli.system import actor, system
from workers.core.errors import AgentGone, ApprovalRefused, NotWaiting
from workers.core.lifecycle import RunStatus
from workers.protocol import names
from workers.protocol.kinds import Phase, RunKind
from workers.protocol.log_lines import LogLine
from workers.services.formatting import duration
from workers.services.runs import locks, requests
from workers.services.runs import views as run_views
from workers.services.runs.logs import LogReader
from workers.services.runs.requests import Decided
from workers.services.runs.submit import RunRequest
from workers.services.runs.views import RunView
from workers.services.secrets.variables import of_run

app = typer.Typer()

_ENTRY_PATIENCE = 5.0
_LATER = "later"


@app.command()
@with_options(RUN_OPTIONS | SENSITIVE)
def plan(
    workspace: WorkspaceName,
    *,
    destroy: Destroy = False,
    priority: Priority = 0,
    no_wait: NoWait = False,
    as_json: AsJson = False,
    given: dict[str, Any],
) -> None:
    """Plan a workspace: show what an apply would change."""
    run_id = _enqueue(RunKind.PLAN, workspace, priority=priority, destroy=destroy, **_asked(given))
    if no_wait:
        _leave(run_id, workspace, as_json=as_json)
    else:
        _finish(_follow(run_id, ask=False, as_json=as_json), as_json=as_json)


@app.command()
@with_options(RUN_OPTIONS | SENSITIVE)
def apply(
    workspace: WorkspaceName,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Confirm what it planned, without asking.")] = False,
    destroy: Destroy = False,
    priority: Priority = 0,
    no_wait: NoWait = False,
    as_json: AsJson = False,
    given: dict[str, Any],
) -> None:
    """Plan a workspace, ask for a confirmation, and apply that very plan."""
    # The confirmation travels with the request: it holds wherever this command ends.
    confirmed = {"auto_apply": True} if yes else {}
    asked = _asked(given)
    run_id = _enqueue(RunKind.PLAN_AND_APPLY, workspace, priority=priority, destroy=destroy, **confirmed, **asked)
    if no_wait:
        _leave(run_id, workspace, as_json=as_json)
    else:
        _finish(_follow(run_id, ask=is_interactive() and not as_json, as_json=as_json), as_json=as_json)


@app.command()
def confirm(run: RunId, message: Message = None, no_wait: NoWait = False, as_json: AsJson = False) -> None:
    """Show the plan of a waiting run and let that very plan be applied; or approve it, where more people have to."""
    seen = look_at_plan(run, errors=as_json)
    attempt = {} if seen is None else {"attempt": seen.attempt}
    decided = _request(names.CONFIRM, run, message=message, **attempt)
    if decided.status is RunStatus.APPLY_PENDING:
        _tell_as_asked(decided, as_json=as_json, goes_on=": approved, and further people have to approve it")
        raise typer.Exit(LEFT_WAITING)
    if no_wait and not decided.status.is_over:
        follows = f": `terraslot logs -f {decided.run_id}` follows it"
        _tell_as_asked(decided, as_json=as_json, goes_on=follows)
    else:
        _finish(_await_end(decided.run_id, lambda line: line.phase == Phase.APPLY, as_json=as_json), as_json=as_json)


@app.command()
def extend(run: RunId, longer: Longer = "4h", message: Message = None, as_json: AsJson = False) -> None:  # type: ignore[assignment]
    """Let the plan of a waiting run wait longer for a confirmation."""
    asked = _request(names.EXTEND, run, seconds=longer, message=message)
    _tell_as_asked(asked, as_json=as_json, goes_on=f", and waits {duration(longer)} longer for a confirmation")


@app.command()
def discard(run: RunId, message: Message = None, as_json: AsJson = False) -> None:
    """Refuse the plan of a waiting run."""
    _tell_as_asked(_request(names.DISCARD, run, message=message), as_json=as_json)


@app.command()
def cancel(
    run: RunId,
    force: Annotated[bool, typer.Option("--force", help="Kill terraform; its state may be lost.")] = False,
    message: Message = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """End a run: terraform is interrupted once, and has time to store its state."""
    asked = _request(names.CANCEL, run, force=force, message=message)
    if no_wait or asked.status.is_over:
        _tell_as_asked(asked, as_json=as_json)
        return
    ended = _await_end(asked.run_id, lambda _: False, as_json=as_json)
    if ended.status is RunStatus.CANCELLED:
        _tell_as_asked(ended, as_json=as_json)
        return
    tell(ended, as_json=as_json)
    raise typer.Exit(FAILURE)


@app.command()
def unlock(run: RunId, message: Message = None, no_wait: NoWait = False, as_json: AsJson = False) -> None:
    """End the lock that a run has met, or holds, where its holder is a run that is known to be dead."""
    locks.unlock(system(), run)
    change_state(names.UNLOCK, run, message, no_wait=no_wait, as_json=as_json)


@app.command()
def logs(
    run: RunId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run is over.")] = False,
    phase: Annotated[Phase | None, typer.Option("--phase", help="Of this phase alone.")] = None,
    attempt: Annotated[int | None, typer.Option("--attempt", min=1, help="Of this attempt alone.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print what terraform printed. As JSON: a list of lines, or with --follow a document a line."""
    found = run_views.one(system().database, run)

    def wanted(line: LogLine) -> bool:
        return (phase is None or line.phase == phase) and (attempt is None or line.attempt == attempt)

    if follow:
        _follow_log(found, wanted, as_json=as_json)
        return
    lines = filter(wanted, LogReader(system(), found))
    if as_json:
        show_json(list(lines))
        return
    printed = False
    for line in lines:
        printed = True
        say(line.text)
    if not printed:
        of_these = " of these" if phase or attempt else ""
        say(f"Run {found.run_id} has no log{of_these}: it has printed nothing.", errors=True)


def change_state(task: str, run: str, message: str | None, *, no_wait: bool, as_json: bool) -> None:
    """Send the task of a run that changes a state, and follow that run."""
    found = run_views.one(system().database, run)
    run_id = str(uuid.uuid4())
    requests.change_state(system(), task, found.run_id, run_id, actor(), message=message)
    if no_wait:
        _leave(run_id, found.workspace, as_json=as_json)
    else:
        _finish(_follow(run_id, ask=False, as_json=as_json), as_json=as_json)


def _asked(given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a run's task that these options stand for."""
    asked = {
        option: given[option] for option in ("refresh_only", "replace", "parallelism", "message") if given.get(option)
    }
    if targets := given.get("target"):
        asked["targets"] = targets
    if values := variables(given):
        asked["variables"] = values
    if encrypted := of_run(system(), change(given).given):
        asked["encrypted_variables"] = encrypted
    return asked


def _enqueue(kind: RunKind, workspace: str, **options: Any) -> str:
    """Send the task of a run; return the run's id.

    Raises ``ValidationError``, :class:`UnknownWorkspace` and :class:`UnknownVersion` before anything is sent.
    """
    run_id = str(uuid.uuid4())
    request, trace = RunRequest(workspace=workspace, **options), system().settings.traceparent
    requests.enqueue(system(), kind, request, run_id, actor(), trace=trace)
    return run_id


def _request(task: str, run: str, **options: Any) -> Decided:
    """Send a decision about a run, in the name of who uses this command."""
    return requests.decide(system(), task, run, actor(), **options)


def _leave(run_id: str, workspace: str, *, as_json: bool) -> None:
    with Progress(errors=True) as progress:
        run = Follower(system(), run_id, progress).until_entered(_ENTRY_PATIENCE)
    if run is not None:
        tell(run, as_json=as_json)
    elif as_json:
        show_json({"run_id": run_id, "workspace": workspace, "status": RunStatus.PENDING})
    else:
        say(f"Run {run_id} is enqueued; no worker has taken it yet.")


def _follow(run_id: str, *, ask: bool, as_json: bool) -> RunView:
    """Follow a run until it is over, or left waiting for a decision; its plan is shown before it is applied."""
    shown: set[int] = set()

    def show_plan(run: RunView) -> None:
        known = run.changes["add"] is not None  # of an apply that needs nobody, it is read meanwhile
        if run.attempt not in shown and known:
            shown.add(run.attempt)
            tell_plan(run, run_views.plan(system().database, run), at_most=SHOWN, errors=as_json)

    with _progress(run_id, as_json=as_json) as progress:
        follower = Follower(system(), run_id, progress, before_apply=show_plan)
        progress.note(f"Run {run_id}", style="bold")
        follower.until_entered()
        run = follower.until(waits_or_is_over)
        while run.status is RunStatus.APPLY_PENDING and ask:
            show_plan(run)
            answer = _ask()
            if answer == _LATER or not _decide(run, answer, progress):
                break
            run = follower.until(waits_or_is_over)
    return run if as_json else _without(progress.told, run)


def _await_end(run_id: str, wanted: Callable[[LogLine], bool], *, as_json: bool) -> RunView:
    with _progress(run_id, as_json=as_json) as progress:
        run = Follower(system(), run_id, progress, wanted).until(is_over)
    return run if as_json else _without(progress.told, run)


def _without(told: Collection[str], run: RunView) -> RunView:
    """Return a run without the lines of its error that its log has told already: an error is shown once."""
    seen = {line.strip("│ ") for line in told}
    left = [line for line in (run.error or "").splitlines() if line.strip() not in seen]
    return replace(run, error="\n".join(left).strip() or None)


@contextmanager
def _progress(run_id: str, *, as_json: bool) -> Iterator[Progress]:
    """Show how a run goes on. Ctrl-C ends the command alone, and says how to follow the run again."""
    with Progress(errors=as_json) as progress:
        try:
            yield progress
        except (KeyboardInterrupt, typer.Abort):
            signal(SIGINT, SIG_IGN)  # a second Ctrl-C changes nothing
            progress.pause()
            progress.note(f"\nThis command is over, the run is not: {_how_to_go_on(run_id, progress.run)}.", "yellow")
            raise typer.Exit(INTERRUPTED) from None


def _how_to_go_on(run_id: str, run: RunView | None) -> str:
    if run is not None and run.status is RunStatus.APPLY_PENDING:
        return f"`terraslot confirm {run_id}` shows its plan and applies it, `terraslot discard {run_id}` refuses it"
    how = f"`terraslot logs -f {run_id}` follows it, `terraslot cancel {run_id}` ends it"
    if run is None or run.kind is RunKind.PLAN or not run.auto_apply or run.status is RunStatus.APPLYING:
        return how
    return f"it applies what it plans. {how}"


def _ask() -> str:
    while True:
        answer = str(typer.prompt("Apply this plan? (yes, no: refuse it, later: leave it waiting)")).strip().lower()
        for known in ("yes", "no", _LATER):
            if answer and known.startswith(answer):
                return known


def _decide(run: RunView, answer: str, progress: Progress) -> bool:
    """Decide about a run as answered; return False where others have to."""
    try:
        if answer == "yes":
            return _request(names.CONFIRM, run.run_id, attempt=run.attempt).status is not RunStatus.APPLY_PENDING
        _request(names.DISCARD, run.run_id)
    except (NotWaiting, AgentGone, ApprovalRefused) as error:
        progress.note(str(error), "yellow")
        return not isinstance(error, ApprovalRefused)
    return True


def _finish(run: RunView, *, as_json: bool) -> None:
    tell(run, as_json=as_json)
    if warning := run_views.unsaved(system().database, run):
        say(warning, style="bold red", errors=True)
    raise typer.Exit(exit_code(run))


def _tell_as_asked(
    run: RunView | Decided, *, as_json: bool, goes_on: str = "; it is over when terraform is gone"
) -> None:
    """Print a run that is as it was asked for: no error, whatever its status."""
    if as_json:
        show_json(run)
    elif run.status.is_over:
        say(f"Run {run.run_id} of workspace {run.workspace} is {run.status}.")
    else:
        say(f"Run {run.run_id} is {run.status}{goes_on}.")


def _follow_log(run: RunView, wanted: Callable[[LogLine], bool], *, as_json: bool) -> None:
    # A line that is printed as JSON is not for people then.
    shown = (lambda line: wanted(line) and _printed(line)) if as_json else wanted
    with _progress(run.run_id, as_json=as_json) as progress:
        ended = Follower(system(), run.run_id, progress, shown).until(is_over)
    if not as_json:
        say(f"Run {ended.run_id} is {ended.status}.", style=STYLES.get(ended.status, ""), errors=True)


def _printed(line: LogLine) -> bool:
    """Print a line as JSON; return that nothing more is to be shown of it."""
    show_json(line, indent=None)
    return False
