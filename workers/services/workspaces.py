"""Workspaces as people manage them."""

from __future__ import annotations

from pathlib import Path

from workers.core.errors import InvalidRequest
from workers.core.workspaces import DirectorySource, WorkspaceSpec
from workers.services.system import System
from workers.store import pools, workspaces

_CONFIGURATION = ("*.tf", "*.tf.json", "*.tofu", "*.tofu.json")


def create(system: System, spec: WorkspaceSpec) -> None:
    """Save a new workspace.

    Raises :class:`InvalidRequest` where its directory is not there or holds no configuration,
    :class:`UnknownPool`, or :class:`NameTaken`.
    """
    _check_source(spec)
    with system.database.begin() as session:
        pools.get(session, spec.pool)
        workspaces.save(session, spec, system.now())


def update(system: System, spec: WorkspaceSpec) -> None:
    """Replace a workspace's configuration; runs that were planned keep what they were planned with."""
    _check_source(spec)
    with system.database.begin() as session:
        pools.get(session, spec.pool)
        workspaces.update(session, spec, system.now())


def delete(system: System, name: str) -> None:
    """Remove a workspace. Raises :class:`StillInUse` while a run of it is not over (F29)."""
    with system.database.begin() as session:
        workspaces.delete(session, name)


def get(system: System, name: str) -> WorkspaceSpec:
    """Return a workspace's configuration. Raises :class:`UnknownWorkspace`."""
    with system.database.read() as session:
        return workspaces.get(session, name)


def every(system: System) -> list[WorkspaceSpec]:
    """Return all workspaces, by name."""
    with system.database.read() as session:
        return workspaces.all(session)


def _check_source(spec: WorkspaceSpec) -> None:
    if not isinstance(spec.source, DirectorySource):
        return
    directory = Path(spec.source.path, spec.source.subdir)
    if not directory.is_dir():
        raise InvalidRequest(f"Workspace {spec.name}: the directory {directory} does not exist on this machine.")
    if not any(match for pattern in _CONFIGURATION for match in directory.glob(pattern)):
        raise InvalidRequest(
            f"Workspace {spec.name}: the directory {directory} holds no Terraform configuration (no *.tf file)."
        )
