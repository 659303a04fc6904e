"""``workspace``: what Terraslot runs Terraform for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from workers.cli.console import cell, console, say, show_json, table
from workers.cli.options import AsJson, WorkspaceName
from workers.cli.sensitive import SensitiveEnvOption, SensitiveVarOption, UnsetSensitiveOption, change, value_of
from workers.cli.specifications import FileOption, apply_all, read
from workers.cli.system import system
from workers.protocol.sources import DirectorySource, GitSource
from workers.services import workspaces
from workers.specs.workspaces import WorkspaceSpec

app = typer.Typer(help="Manage workspaces.", no_args_is_help=True)

_VAR = 'Terraform variable NAME=VALUE; a VALUE that begins with [, { or " is JSON. May be repeated.'
PathOption = Annotated[Path | None, typer.Option(help="A directory with Terraform configuration.")]
GitOption = Annotated[str | None, typer.Option(metavar="URL", help="A git repository instead.")]
RefOption = Annotated[str | None, typer.Option(help="Its branch, tag or commit.")]
SubdirOption = Annotated[str | None, typer.Option(help="Where Terraform runs inside the directory or repository.")]
PoolOption = Annotated[str | None, typer.Option(help="The pool that runs it.")]
VarOption = Annotated[list[str] | None, typer.Option("--var", metavar="NAME=VALUE", help=_VAR)]
EnvOption = Annotated[
    list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="Environment variable. May be repeated.")
]
AutoApplyOption = Annotated[
    bool | None, typer.Option("--auto-apply/--no-auto-apply", help="Apply plans without a confirmation.")
]
ConfirmTimeoutOption = Annotated[
    int | None, typer.Option(metavar="SECONDS", help="How long a plan waits for a person; the pool's, unless given.")
]


@app.command()
def create(
    name: WorkspaceName,
    *,
    path: PathOption = None,
    git: GitOption = None,
    ref: RefOption = None,
    subdir: SubdirOption = None,
    pool: PoolOption = None,
    var: VarOption = None,
    env: EnvOption = None,
    sensitive_var: SensitiveVarOption = None,
    sensitive_env: SensitiveEnvOption = None,
    auto_apply: AutoApplyOption = None,
    confirm_timeout: ConfirmTimeoutOption = None,
    as_json: AsJson = False,
) -> None:
    """Create a workspace from a directory (--path) or from git (--git)."""
    source = _source(path, git, ref, subdir)
    if source is None:
        raise typer.BadParameter("Say where its configuration is: --path DIR, or --git URL.")
    given = {"pool": pool, "auto_apply": auto_apply, "confirm_timeout": confirm_timeout}
    spec = WorkspaceSpec(
        name=name,
        source=source,
        variables=_variables(var),
        environment=_assignments("--env", env),
        **_given(given),
    )
    workspaces.create(system(), spec, change(sensitive_var, sensitive_env).given)
    _told(workspaces.get(system(), name), "created", as_json=as_json)


@app.command()
def update(
    name: WorkspaceName,
    *,
    path: PathOption = None,
    git: GitOption = None,
    ref: RefOption = None,
    subdir: SubdirOption = None,
    pool: PoolOption = None,
    var: VarOption = None,
    env: EnvOption = None,
    unset_var: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Remove a Terraform variable.")] = None,
    unset_env: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Remove an environment variable.")] = None,
    sensitive_var: SensitiveVarOption = None,
    sensitive_env: SensitiveEnvOption = None,
    unset_sensitive: UnsetSensitiveOption = None,
    auto_apply: AutoApplyOption = None,
    confirm_timeout: ConfirmTimeoutOption = None,
    as_json: AsJson = False,
) -> None:
    """Change what is given; the rest stays. Runs that were planned keep what they were planned with."""
    old = workspaces.get(system(), name)
    changed = {"pool": pool, "auto_apply": auto_apply, "confirm_timeout": confirm_timeout}
    spec = WorkspaceSpec.model_validate(
        old.model_dump()
        | _given(changed)
        | {
            "source": _source(path, git, ref, subdir) or _changed(old.source, ref, subdir),
            "variables": _without(old.variables | _variables(var), unset_var),
            "environment": _without(old.environment | _assignments("--env", env), unset_env),
        }
    )
    workspaces.update(system(), spec, change(sensitive_var, sensitive_env, unset_sensitive))
    _told(workspaces.get(system(), name), "updated", as_json=as_json)


@app.command()
def apply(file: FileOption, as_json: AsJson = False) -> None:
    """Create or change workspaces from a YAML or JSON file."""
    apply_all("workspace", read(file, WorkspaceSpec), lambda spec: (workspaces.apply(system(), spec), None), as_json)


@app.command("list")
def list_workspaces(as_json: AsJson = False) -> None:
    """List all workspaces."""
    found = [spec.shown for spec in workspaces.every(system())]
    if as_json:
        show_json(found)
        return
    if not found:
        say("No workspaces: `terraslot workspace create NAME --path DIR` makes one.")
        return
    made = table("WORKSPACE", "POOL", "SOURCE", "APPLIES")
    for spec in found:
        applies = "by itself" if spec.auto_apply else "when confirmed"
        made.add_row(cell(spec.name), cell(spec.pool), cell(_where(spec)), cell(applies))
    console().print(made)


@app.command()
def show(name: WorkspaceName, as_json: AsJson = False) -> None:
    """Show a workspace."""
    spec = workspaces.get(system(), name).shown
    if as_json:
        show_json(spec)
        return
    say(f"Workspace {spec.name}", style="bold")
    say(f"  pool = {spec.pool}")
    say(f"  source = {_where(spec)}")
    say(f"  applies = {'by itself' if spec.auto_apply else 'when confirmed'}")
    say(f"  confirm timeout = {f'{spec.confirm_timeout} s' if spec.confirm_timeout else 'that of the pool'}")
    for kind, values in (("var", spec.variables), ("env", spec.environment)):
        for variable, value in sorted(values.items()):
            say(f"  {kind} {variable} = {value if isinstance(value, str) else json.dumps(value)}")
    for variable in spec.sensitive:
        say(f"  sensitive {variable}")


@app.command()
def delete(name: WorkspaceName, as_json: AsJson = False) -> None:
    """Delete a workspace. Its runs stay on record, and its state where it is."""
    spec = workspaces.get(system(), name)
    workspaces.delete(system(), name)
    _told(spec, "deleted", as_json=as_json)


def _told(spec: WorkspaceSpec, verb: str, *, as_json: bool) -> None:
    if as_json:
        show_json(spec.shown)
    else:
        say(f"Workspace {spec.name} {verb}.")


def _source(
    path: Path | None, git: str | None, ref: str | None, subdir: str | None
) -> DirectorySource | GitSource | None:
    """Return the source that options name; None where they name neither directory nor repository."""
    if path is not None and git is not None:
        raise typer.BadParameter("A workspace has one source: --path or --git, not both.")
    if path is not None:
        if ref is not None:
            raise typer.BadParameter("--ref belongs to a git repository: --git URL --ref REF.")
        return DirectorySource(path=str(path.absolute()), subdir=subdir or "")
    return None if git is None else GitSource(url=git, ref=ref or "HEAD", subdir=subdir or "")


def _changed(old: DirectorySource | GitSource, ref: str | None, subdir: str | None) -> dict[str, Any]:
    if ref is not None and not isinstance(old, GitSource):
        raise typer.BadParameter("--ref belongs to a git repository, and this workspace has a directory.")
    return old.model_dump() | _given({"ref": ref, "subdir": subdir})


def _where(spec: WorkspaceSpec) -> str:
    source = spec.source
    place = source.path if isinstance(source, DirectorySource) else f"{source.url} at {source.ref}"
    return f"{place}, in {source.subdir}" if source.subdir else place


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _without(values: dict[str, Any], names: Sequence[str] | None) -> dict[str, Any]:
    unknown = [name for name in names or () if name not in values]
    if unknown:
        raise typer.BadParameter(f"The workspace has no variable {unknown[0]!r}.")
    return {name: value for name, value in values.items() if name not in (names or ())}


def _assignments(option: str, given: Sequence[str] | None) -> dict[str, str]:
    pairs = [assignment.partition("=") for assignment in given or ()]
    for name, equals, _ in pairs:
        if not equals or not name:
            raise typer.BadParameter(f"{option} {name}: write NAME=VALUE.")
    return {name: value for name, _, value in pairs}


def _variables(given: Sequence[str] | None) -> dict[str, Any]:
    return {name: value_of("--var", name, value) for name, value in _assignments("--var", given).items()}
