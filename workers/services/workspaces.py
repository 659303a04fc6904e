"""Create, update, apply and delete workspaces."""

from pathlib import Path
from typing import assert_never

from workers.core.errors import AlreadyLocked, UnknownWorkspace, Unreadable
from workers.core.waiting import MaintenanceLock
from workers.protocol.errors import InvalidRequest
from workers.protocol.sources import (
    CREDENTIALS,
    ArchiveSource,
    DirectorySource,
    GitSource,
    SensitiveVariables,
    is_configuration,
    without_credentials,
)
from workers.services import local_states
from workers.services.runs.wake import request_start
from workers.services.secrets import variables
from workers.services.system import System
from workers.specs import Applied
from workers.specs.workspaces import WorkspaceSpec
from workers.store import run_queries, workspace_queue, workspaces
from workers.store.models import Run
from workers.store.secrets import Owner

_LONGEST_MESSAGE = 500


def create(
    system: System, spec: WorkspaceSpec, given: SensitiveVariables | None = None, *, adopt_state: str | None = None
) -> None:
    """Save a new workspace with the sensitive variables that are given.

    Its local state is one of its own (F47), unless ``adopt_state`` names one that a deleted workspace has left.

    Raises :class:`InvalidRequest` for what :func:`check` refuses, where a local pool's directory or archive is not
    there, and where there is no such state; :class:`UnknownPool`, :class:`NameTaken`, or :class:`StillInUse` where the
    state is another workspace's.
    """
    variables.expect_known(spec.name, spec.sensitive, ())
    _check_here(system, spec)
    home = system.settings.home
    state = local_states.new(spec.name) if adopt_state is None else local_states.adoptable(home, adopt_state)
    with system.database.begin() as session:
        workspaces.save(session, spec, system.now(), state)
        if given and given.names:
            spec = variables.store(system, session, Owner.WORKSPACE, spec, variables.Change(given))
            workspaces.update(session, spec, system.now())


def update(system: System, spec: WorkspaceSpec, change: variables.Change | None = None) -> None:
    """Replace a workspace's configuration; a run that was planned is applied with what it was planned with.

    Its sensitive variables stay, except as ``change`` says.
    """
    _check_here(system, spec)
    with system.database.begin() as session:
        spec = variables.kept(workspaces.get(session, spec.name), spec)
        workspaces.update(session, variables.store(system, session, Owner.WORKSPACE, spec, change), system.now())


def apply(system: System, spec: WorkspaceSpec) -> Applied:
    """Create a workspace, or make it what the configuration says; its sensitive variables stay."""
    try:
        old = get(system, spec.name)
    except UnknownWorkspace:
        create(system, spec)
        return Applied.CREATED
    if variables.kept(old, spec) == old:
        return Applied.UNCHANGED
    update(system, spec)
    return Applied.CHANGED


def delete(system: System, name: str) -> Path | None:
    """Delete a workspace, and return where on this machine its local state stays; None where there is none.

    Raises :class:`StillInUse` while a run of it is not over (F29).
    """
    with system.database.begin() as session:
        state = workspaces.state_directory(session, name)
        workspaces.delete(session, name)
    return local_states.leave(system.settings.home, name, state)


def lock(system: System, name: str, by: str, message: str) -> tuple[MaintenanceLock, Run | None]:
    """Hold the state-changing runs of a workspace; return the lock, and the run that had started and goes on.

    The one who has locked it may give another message. Raises :class:`AlreadyLocked` where that is somebody else.
    """
    if not message.strip() or len(message) > _LONGEST_MESSAGE:
        raise InvalidRequest(f"A lock needs a message, of up to {_LONGEST_MESSAGE} characters: why do runs wait?")
    wanted = MaintenanceLock(by, system.now(), message)
    with system.database.begin() as session:
        before = workspace_queue.set_maintenance_lock(session, name, wanted, system.now())
        now, active = workspace_queue.maintenance_lock(session, name), run_queries.active_in(session, name)
    if now is None or (before is not None and before.by != by):
        raise AlreadyLocked(f"The workspace {name!r} is {before}. `terraslot workspace unlock {name}` ends that.")
    return now, active


def unlock(system: System, name: str) -> MaintenanceLock | None:
    """Let the runs of a workspace go on, whoever has locked it; return the lock that there was."""
    with system.database.begin() as session:
        before = workspace_queue.set_maintenance_lock(session, name, None, system.now())
        pool = workspace_queue.runnable_in(session, name)
    if pool is not None:
        request_start(system, pool)
    return before


def locked(system: System, name: str) -> MaintenanceLock | None:
    """Return the lock that holds the state-changing runs of a workspace. Raises :class:`UnknownWorkspace`."""
    with system.database.read() as session:
        return workspace_queue.maintenance_lock(session, name)


def get(system: System, name: str) -> WorkspaceSpec:
    """Return a workspace's configuration. Raises :class:`UnknownWorkspace`."""
    with system.database.read() as session:
        return workspaces.get(session, name)


def check(spec: WorkspaceSpec) -> None:
    """Raise :class:`InvalidRequest` for passwords and keys in what everybody sees of a workspace."""
    for name in CREDENTIALS:
        if name in spec.environment:
            raise InvalidRequest(
                f"Workspace {spec.name}: its environment, which everybody sees, holds {name}. Leave it out there "
                f"(--unset-env {name}, where it is set already) and give it with --sensitive-env {name}."
            )
    match spec.source:
        case DirectorySource():
            pass
        case GitSource(url=url) | ArchiveSource(url=url):
            _expect_no_credentials(spec.name, url, "ARCHIVE" if isinstance(spec.source, ArchiveSource) else "GIT")
        case _:
            assert_never(spec.source)


def every(system: System) -> tuple[list[WorkspaceSpec], list[Unreadable]]:
    """Return all workspaces, by name, and what is wrong with each that can't be read."""
    found: list[WorkspaceSpec] = []
    unreadable: list[Unreadable] = []
    with system.database.read() as session:
        for name in workspaces.names(session):
            try:
                found.append(workspaces.get(session, name))
            except Unreadable as error:
                unreadable.append(error)
    return found, unreadable


def _check_here(system: System, spec: WorkspaceSpec) -> None:
    """Check a workspace, and look for its source where its pool's agents would: on this machine, or not from here."""
    check(spec)
    if not system.pods(system.pool(spec.pool)).on_this_machine:
        return
    match spec.source:
        case DirectorySource():
            _expect_configuration(spec.name, spec.source)
        case ArchiveSource(url=path) if path.startswith("/") and not Path(path).is_file():
            raise InvalidRequest(f"Workspace {spec.name}: the archive {path} does not exist on this machine.")
        case _:
            pass


def _expect_no_credentials(name: str, url: str, kind: str) -> None:
    """Refuse a URL that holds a password: everybody sees it in the workspace, and in the logs of its runs."""
    bare = without_credentials(url)
    if bare == url:
        return
    if url.startswith(("https://", "http://")):
        way = (
            f"give the password or token with --sensitive-env {kind}_PASSWORD and, if it matters, --env "
            f"{kind}_USERNAME=NAME"
        )
    else:
        way = "use ssh with a key (--sensitive-env GIT_SSH_KEY=@FILE): neither ssh nor git takes a password from a URL"
    raise InvalidRequest(f"Workspace {name}: its URL holds a password or a token. Write {bare}, and {way}.")


def _expect_configuration(name: str, source: DirectorySource) -> None:
    directory = Path(source.path, source.subdir)
    if not directory.is_dir():
        raise InvalidRequest(f"Workspace {name}: the directory {directory} does not exist on this machine.")
    if not any(is_configuration(path.name) for path in directory.iterdir()):
        raise InvalidRequest(
            f"Workspace {name}: the directory {directory} holds no Terraform configuration (no *.tf file)."
        )
