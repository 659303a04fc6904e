"""``workspace``: what Terraslot runs Terraform for."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from workers.cli import sources
from workers.cli.console import answer, say, show_json, show_table
from workers.cli.options import TERRAFORM, VARIABLES, AsJson, WorkspaceName, assignments, variables, with_options
from workers.cli.sensitive import SENSITIVE, UNSET_SENSITIVE, change
from workers.cli.sources import SOURCE
from workers.cli.specifications import CheckOption, FileOption, apply_all, read
from workers.cli.system import actor, system
from workers.services import workspaces
from workers.specs.workspaces import WorkspaceSpec

app = typer.Typer(help="Manage workspaces.", no_args_is_help=True)

_ENV = "Environment variable. May be repeated."
_SETTINGS: dict[str, Any] = {
    **SOURCE,
    "pool": Annotated[str | None, typer.Option(help="The pool that runs it.")],
    "terraform": TERRAFORM,
    "var": VARIABLES,
    "env": Annotated[list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help=_ENV)],
    "auto_apply": Annotated[
        bool | None, typer.Option("--auto-apply/--no-auto-apply", help="Apply plans without a confirmation.")
    ],
    "confirm_timeout": Annotated[
        int | None, typer.Option(metavar="SECONDS", help="How long a plan waits for a person; by default the pool's.")
    ],
    "plan_timeout": Annotated[
        float | None, typer.Option(metavar="SECONDS", help="How long a plan may take; by default the pool's time.")
    ],
    "apply_timeout": Annotated[
        float | None, typer.Option(metavar="SECONDS", help="How long an apply may take; by default the pool's time.")
    ],
    "four_eyes": Annotated[
        bool | None, typer.Option("--four-eyes/--no-four-eyes", help="Another person confirms than the one who asked.")
    ],
    "approvals": Annotated[int | None, typer.Option(min=1, max=20, help="So many people have to confirm.")],
    "approver": Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Who may confirm; anybody unless given. May be repeated.")
    ],
}
_ADOPTION: dict[str, Any] = {
    "adopt_state": Annotated[
        str | None, typer.Option(metavar="STATE", help="Go on with the local state that a deleted workspace has left.")
    ]
}
_REMOVALS: dict[str, Any] = {
    "unset_var": Annotated[list[str] | None, typer.Option(metavar="NAME", help="Remove a Terraform variable.")],
    "unset_env": Annotated[list[str] | None, typer.Option(metavar="NAME", help="Remove an environment variable.")],
    "unset_approver": Annotated[list[str] | None, typer.Option(metavar="NAME", help="Remove one who may confirm.")],
}
_FIELDS = ("pool", "auto_apply", "confirm_timeout")


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that options give as they are; a requirement that is empty is none."""
    said = {field: given[field] for field in _FIELDS if field in given}
    return said | ({"terraform": given["terraform"] or None} if "terraform" in given else {})


@app.command()
@with_options(_SETTINGS | _ADOPTION | SENSITIVE)
def create(name: WorkspaceName, *, as_json: AsJson = False, given: dict[str, Any]) -> None:
    """Create a workspace from a directory, git, or an archive."""
    source = sources.named(given)
    if source is None:
        raise typer.BadParameter("Name its configuration: --path DIR, --git URL, or --archive FILE.")
    spec = WorkspaceSpec(
        name=name,
        source=source,
        variables=variables(given),
        environment=assignments("env", given),
        approval=_approval({}, given),
        timeouts=_timeouts(given),
        **_fields(given),
    )
    workspaces.create(system(), spec, change(given).given, adopt_state=given.get("adopt_state"))
    _tell(workspaces.get(system(), name), "created", as_json=as_json)


@app.command()
@with_options(_SETTINGS | _REMOVALS | SENSITIVE | UNSET_SENSITIVE)
def update(name: WorkspaceName, *, as_json: AsJson = False, given: dict[str, Any]) -> None:
    """Change what is given; the rest stays. Runs that were planned keep what they were planned with."""
    old = workspaces.get(system(), name)
    changed = {
        **_fields(given),
        "source": sources.named(given, old.source) or sources.changed(old.source, given),
        "variables": _without(old.variables | variables(given), given.get("unset_var", ())),
        "environment": _without(old.environment | assignments("env", given), given.get("unset_env", ())),
        "approval": _approval(old.approval.model_dump(), given),
        "timeouts": old.timeouts.model_dump() | _timeouts(given),
    }
    spec = WorkspaceSpec.model_validate(old.model_dump() | changed)
    workspaces.update(system(), spec, change(given))
    _tell(workspaces.get(system(), name), "updated", as_json=as_json)


@app.command()
def apply(file: FileOption, check: CheckOption = False, as_json: AsJson = False) -> None:
    """Create or change workspaces from a YAML or JSON file."""
    apply_all("workspace", read(file, WorkspaceSpec), _check if check else _save, as_json)


@app.command("list")
def list_workspaces(as_json: AsJson = False) -> None:
    """List all workspaces."""
    readable, unreadable = workspaces.every(system())
    for problem in unreadable:
        say(str(problem), errors=True, style="yellow")
    found = [spec.shown for spec in readable]
    if as_json:
        show_json(found)
    elif not found and not unreadable:
        say("No workspaces: `terraslot workspace create NAME --path DIR` makes one.")
    else:
        rows = ((spec.name, spec.pool, sources.place(spec.source), _applies(spec)) for spec in found)
        show_table(("WORKSPACE", "POOL", "SOURCE", "APPLIES"), rows)


@app.command()
def show(name: WorkspaceName, as_json: AsJson = False) -> None:
    """Show a workspace."""
    spec, lock = workspaces.get(system(), name).shown, workspaces.locked(system(), name)
    if as_json:
        show_json(spec.model_dump(mode="json") | {"lock": lock})
        return
    say(f"Workspace {spec.name}", style="bold")
    if lock:
        say(f"  {lock}", style="yellow")
    say(f"  pool = {spec.pool}")
    say(f"  source = {sources.place(spec.source)}")
    say(f"  applies = {_applies(spec)}")
    if spec.terraform:
        say(f"  terraform = {spec.terraform}")
    for rule, value in spec.approval.model_dump(exclude_defaults=True).items():
        say(f"  approval {rule} = {', '.join(value) if rule == 'names' else value}")
    say(f"  confirm timeout = {f'{spec.confirm_timeout} s' if spec.confirm_timeout else 'that of the pool'}")
    for phase, seconds in spec.timeouts.model_dump(exclude_none=True).items():
        say(f"  {phase} timeout = {seconds:g} s")
    for kind, values in (("var", spec.variables), ("env", spec.environment)):
        for variable, value in sorted(values.items()):
            say(f"  {kind} {variable} = {value if isinstance(value, str) else json.dumps(value)}")
    for variable in spec.sensitive:
        say(f"  sensitive {variable}")


@app.command()
def delete(name: WorkspaceName, as_json: AsJson = False) -> None:
    """Delete a workspace. Its runs stay on record, and its state is kept: a new one of the name does not get it."""
    spec = workspaces.get(system(), name)
    left = workspaces.delete(system(), name)
    if as_json:
        show_json(spec.shown.model_dump(mode="json") | {"state_left": str(left) if left else None})
    else:
        say(f"Workspace {name} deleted. {_state_left(spec, left)}")


@app.command("lock")
def lock_workspace(
    name: WorkspaceName,
    message: Annotated[str, typer.Option("--message", help="Why: runs that wait for it say so.")],
    as_json: AsJson = False,
) -> None:
    """Hold the runs that change its state, unless they have started."""
    lock, active = workspaces.lock(system(), name, actor().name, message)
    said = f"Workspace {name} is {lock}."
    if active is not None:
        said += f"\nRun {active.id} ({active.status}) goes on: `terraslot cancel {active.id}` ends it."
    active_run = active.id if active else None
    answer({"name": name, "lock": lock, "active_run": active_run}, said, as_json=as_json)


@app.command()
def unlock(name: WorkspaceName, as_json: AsJson = False) -> None:
    """Let the runs go on that a lock holds."""
    before = workspaces.unlock(system(), name)
    said = f"Workspace {name} is unlocked. It was {before}." if before else f"Workspace {name} is not locked."
    answer({"name": name, "lock": None, "ended": before}, said, as_json=as_json)


def _tell(spec: WorkspaceSpec, verb: str, *, as_json: bool) -> None:
    answer(spec.shown, f"Workspace {spec.name} {verb}.", as_json=as_json)


def _state_left(spec: WorkspaceSpec, left: Path | None) -> str:
    if left is None:
        return "It leaves no state on this machine. If its configuration names a backend, its state stays there."
    return f"Its state stays in {left}: `terraslot workspace create {spec.name} --adopt-state {left.name} …` uses it."


def _applies(spec: WorkspaceSpec) -> str:
    return "by itself" if spec.auto_apply else "when confirmed"


def _check(spec: WorkspaceSpec) -> tuple[str, None]:
    workspaces.check(spec)
    return "valid", None


def _save(spec: WorkspaceSpec) -> tuple[str, None]:
    return workspaces.apply(system(), spec), None


def _timeouts(given: dict[str, Any]) -> Any:
    return {phase: given[f"{phase}_timeout"] for phase in ("plan", "apply") if f"{phase}_timeout" in given}


def _approval(old: dict[str, Any], given: dict[str, Any]) -> Any:
    """Return the rules of a confirmation: the old ones with what options say of them."""
    rules = old | {rule: given[rule] for rule in ("four_eyes", "approvals") if rule in given}
    added = dict.fromkeys([*old.get("names", ()), *given.get("approver", ())], True)
    return rules | {"names": tuple(_without(added, given.get("unset_approver", ()), "approver"))}


def _without(values: dict[str, Any], names: Sequence[str], what: str = "variable") -> dict[str, Any]:
    unknown = [name for name in names if name not in values]
    if unknown:
        raise typer.BadParameter(f"The workspace has no {what} {unknown[0]!r}.")
    return {name: value for name, value in values.items() if name not in names}
