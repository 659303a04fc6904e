"""Sensitive variables of workspaces and pools: encrypted when saved, decrypted only for an order of one pool."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workers.protocol.errors import InvalidRequest
from workers.protocol.sources import SensitiveVariables
from workers.services.secrets.credentials import payload_keyring
from workers.services.system import System
from workers.specs.pools import PoolSpec
from workers.specs.workspaces import WorkspaceSpec
from workers.store import pools, secrets, workspaces
from workers.store.secrets import Owner

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True)
class Change:
    """Variables to keep beside or in place of those that are there, and the names of those to forget."""

    given: SensitiveVariables = field(default_factory=SensitiveVariables)
    unset: tuple[str, ...] = ()


def change(system: System, session: Session, kind: Owner, owner: str, wanted: Change) -> tuple[str, ...]:
    """Change an owner's sensitive variables in this transaction; return the names of those that it has then.

    Raises :class:`InvalidRequest` for a variable to forget that is not there, and where nothing can be encrypted.
    """
    encrypted = secrets.variables(session, kind, owner)
    if wanted == Change() and encrypted is None:
        return ()
    kept = _open(system, encrypted)
    if unknown := sorted(set(wanted.unset) - set(kept.names)):
        raise InvalidRequest(f"The {kind} {owner!r} has no sensitive variable {unknown[0]!r}.")
    changed = SensitiveVariables(
        variables=_without(kept.variables, wanted.unset) | wanted.given.variables,
        environment=_without(kept.environment, wanted.unset) | wanted.given.environment,
    )
    if changed != kept:
        secrets.put_variables(session, kind, owner, _encrypted(system, changed), system.now())
    return changed.names


def expect_no_other(owner: str, said: Collection[str], kept: Collection[str]) -> None:
    """Refuse a configuration that names sensitive variables whose values nobody has given."""
    if unknown := sorted(set(said) - set(kept)):
        raise InvalidRequest(
            f"{owner}: sensitive: {unknown[0]!r} has no value. It gets one with --sensitive-var or --sensitive-env, "
            "and its name is entered here by that."
        )


def set_for_workspace(system: System, name: str, variables: SensitiveVariables) -> None:
    """Keep these sensitive variables for a workspace in place of those it had. Raises :class:`UnknownWorkspace`."""
    encrypted = _encrypted(system, variables)
    with system.database.begin() as session:
        spec = workspaces.get(session, name)
        workspaces.update(session, spec.model_copy(update={"sensitive": variables.names}), system.now())
        secrets.put_variables(session, Owner.WORKSPACE, name, encrypted, system.now())


def set_for_pool(system: System, name: str, variables: SensitiveVariables) -> None:
    """Keep these sensitive variables for every workspace of a pool. Raises :class:`UnknownPool`."""
    encrypted = _encrypted(system, variables)
    with system.database.begin() as session:
        spec = pools.get(session, name)
        pools.update(session, spec.model_copy(update={"sensitive": variables.names}), system.now())
        secrets.put_variables(session, Owner.POOL, name, encrypted, system.now())


def for_order(system: System, session: Session, pool: PoolSpec, workspace: WorkspaceSpec) -> str | None:
    """Return what an order carries encrypted: the pool's variables, and over them the workspace's. None without any.

    Raises :class:`NoKey` where this process lacks the key, and :class:`Unavailable` where the pool has no Secret yet.
    """
    owners = [(Owner.POOL, pool.name, pool.sensitive), (Owner.WORKSPACE, workspace.name, workspace.sensitive)]
    with_any = [(kind, name) for kind, name, names in owners if names]
    if not with_any:
        return None
    merged = SensitiveVariables()
    for kind, name in with_any:
        content = _open(system, secrets.variables(session, kind, name))
        merged = SensitiveVariables(
            variables={**merged.variables, **content.variables},
            environment={**merged.environment, **content.environment},
        )
    return payload_keyring(system, session, pool.name).encrypt(merged.model_dump(mode="json", exclude_defaults=True))


def reencrypt_all(system: System) -> int:
    """Encrypt everything kept with the first of the platform's keys, so that the others can go; return how many."""
    keys = system.settings.keyring
    with system.database.begin() as session:
        rows = secrets.everything(session)
        for row in rows:
            row.encrypted = keys.reencrypt(row.encrypted)
    return len(rows)


def _encrypted(system: System, variables: SensitiveVariables) -> str | None:
    if not variables.names:
        return None
    return system.settings.keyring.encrypt(variables.model_dump(mode="json", exclude_defaults=True))


def _open(system: System, encrypted: str | None) -> SensitiveVariables:
    return (
        SensitiveVariables.model_validate(system.settings.keyring.decrypt(encrypted))
        if encrypted
        else SensitiveVariables()
    )


def _without(values: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}
