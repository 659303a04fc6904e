"""Sensitive variables of workspaces and pools: sealed when they are saved, opened only to be sealed for one pool."""

from __future__ import annotations

from workers.core.pools import PoolSpec
from workers.core.workspaces import SensitiveVariables, WorkspaceSpec
from workers.services.credentials import payload_keyring
from workers.services.system import System
from workers.store import pools, secrets, workspaces
from workers.store.secrets import Owner


def set_for_workspace(system: System, name: str, variables: SensitiveVariables) -> None:
    """Keep these sensitive variables for a workspace in place of those it had. Raises :class:`UnknownWorkspace`."""
    sealed = _sealed(system, variables)
    with system.database.begin() as session:
        spec = workspaces.get(session, name)
        workspaces.update(session, spec.model_copy(update={"sensitive": variables.names}), system.now())
        secrets.put_variables(session, Owner.WORKSPACE, name, sealed, system.now())


def set_for_pool(system: System, name: str, variables: SensitiveVariables) -> None:
    """Keep these sensitive variables for every workspace of a pool. Raises :class:`UnknownPool`."""
    sealed = _sealed(system, variables)
    with system.database.begin() as session:
        spec = pools.get(session, name)
        pools.update(session, spec.model_copy(update={"sensitive": variables.names}), system.now())
        secrets.put_variables(session, Owner.POOL, name, sealed, system.now())


def for_order(system: System, pool: PoolSpec, workspace: WorkspaceSpec) -> str | None:
    """Return what an order carries sealed: the pool's variables, and over them the workspace's. None without any."""
    owners = [(Owner.POOL, pool.name, pool.sensitive), (Owner.WORKSPACE, workspace.name, workspace.sensitive)]
    with_any = [(kind, name) for kind, name, names in owners if names]
    if not with_any:
        return None
    merged = SensitiveVariables()
    for kind, name in with_any:
        content = _opened(system, kind, name)
        merged = SensitiveVariables(
            variables={**merged.variables, **content.variables},
            environment={**merged.environment, **content.environment},
        )
    return payload_keyring(system, pool.name).seal(merged.model_dump(mode="json"))


def seal_anew(system: System) -> int:
    """Seal everything kept with the first of the platform's keys, so that the others can go; return how many."""
    keys = system.settings.keyring
    with system.database.begin() as session:
        rows = secrets.everything(session)
        for row in rows:
            row.sealed = keys.reseal(row.sealed)
    return len(rows)


def _sealed(system: System, variables: SensitiveVariables) -> str | None:
    return system.settings.keyring.seal(variables.model_dump(mode="json")) if variables.names else None


def _opened(system: System, kind: Owner, name: str) -> SensitiveVariables:
    with system.database.read() as session:
        sealed = secrets.variables(session, kind, name)
    return SensitiveVariables.model_validate(system.settings.keyring.open(sealed)) if sealed else SensitiveVariables()
