"""Sensitive variables of workspaces and pools: encrypted when saved, decrypted only for an order of one pool."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from workers.protocol.encryption import Keyring, NoKey
from workers.protocol.errors import InvalidRequest
from workers.protocol.sources import SensitiveVariables
from workers.protocol.validation import problems
from workers.services.secrets.credentials import payload_keyring
from workers.services.system import System
from workers.specs.pools import PoolSpec
from workers.specs.workspaces import WorkspaceSpec
from workers.store import pools, secrets
from workers.store.database import Session
from workers.store.secrets import Owner

Spec = TypeVar("Spec", PoolSpec, WorkspaceSpec)


@dataclass(frozen=True, slots=True)
class Change:
    """Variables to add or replace, and the names of those to remove."""

    given: SensitiveVariables = field(default_factory=SensitiveVariables)
    unset: tuple[str, ...] = ()


def store(system: System, session: Session, kind: Owner, owner: Spec, change: Change | None) -> Spec:
    """Change an owner's sensitive variables in this transaction; return its configuration with the names it has then.

    Raises :class:`InvalidRequest` for a name to remove that is not there, and where nothing can be encrypted.
    """
    if not change or change == Change():
        return owner
    old = _decrypted(system, secrets.variables(session, kind, owner.name))
    if unknown := sorted(set(change.unset) - set(old.names)):
        raise InvalidRequest(f"The {kind} {owner.name!r} has no sensitive variable {unknown[0]!r}.")
    left = {kind: _without(values, change.unset) for kind, values in dict(old).items()}
    new = _merged(SensitiveVariables(**left), change.given)
    if new != old:
        encrypted = _encrypted(system.settings.keyring, new) if new.names else None
        secrets.put_variables(session, kind, owner.name, encrypted, system.now())
    return owner.model_copy(update={"sensitive": new.names})


def expect_known(owner: str, named: Collection[str], known: Collection[str]) -> None:
    """Refuse a configuration that names sensitive variables without a value."""
    if unknown := sorted(set(named) - set(known)):
        raise InvalidRequest(
            f"{owner}: sensitive: {unknown[0]!r} has no value. Give it one with --sensitive-var or --sensitive-env: "
            "that enters its name here."
        )


def kept(old: Spec, new: Spec) -> Spec:
    """Return a new configuration with the sensitive variables of the old one; refuses names without a value."""
    expect_known(new.name, new.sensitive, old.sensitive)
    return new.model_copy(update={"sensitive": old.sensitive})


def expect_usable(
    system: System, session: Session, workspace: WorkspaceSpec, clear: Collection[str], encrypted: str | None
) -> None:
    """Refuse variables of a run that can't be decrypted here, and in clear those that are sensitive.

    Raises :class:`InvalidRequest`.
    """
    sensitive = {*workspace.sensitive, *pools.get(session, workspace.pool).sensitive} if clear else set[str]()
    if shown := sorted(sensitive.intersection(clear)):
        raise InvalidRequest(
            f"variables: {shown[0]!r} is sensitive in this workspace or its pool, and was sent in clear. Give it as an "
            f"encrypted variable (--sensitive-var {shown[0]}), and change what was sent."
        )
    try:
        _decrypted(system, encrypted)
    except ValidationError as error:
        raise InvalidRequest(f"encrypted_variables: {'; '.join(problems(error))}.") from None
    except NoKey:
        raise InvalidRequest(
            "encrypted_variables: none of the platform's keys decrypts it. Encrypt it with the first key of "
            "TERRASLOT_ENCRYPTION_KEYS."
        ) from None


def of_run(system: System, given: SensitiveVariables) -> str | None:
    """Return the sensitive variables of one run as its request carries them; None for none."""
    return _encrypted(system.settings.keyring, given) if given.names else None


def for_order(
    system: System, session: Session, pool: PoolSpec, workspace: WorkspaceSpec, of_run: str | None
) -> str | None:
    """Return what an order carries encrypted: the pool's variables, over them the workspace's and the run's.

    None without any.

    Raises :class:`NoKey` where this process lacks the key, and :class:`Unavailable` where the pool has no Secret yet.
    """
    merged = _of_all(system, session, pool, workspace, of_run)
    return _encrypted(payload_keyring(system, session, pool.name), merged) if merged.names else None


def environment(
    system: System, session: Session, pool: PoolSpec, workspace: WorkspaceSpec, of_run: str | None
) -> dict[str, str]:
    """Return the sensitive environment variables of a run. Raises :class:`NoKey`."""
    return _of_all(system, session, pool, workspace, of_run).environment


def reencrypt_all(system: System) -> int:
    """Encrypt everything stored with the first of the platform's keys: then the others can go. Return how many."""
    keys = system.settings.keyring
    with system.database.begin() as session:
        rows = secrets.everything(session)
        for row in rows:
            row.encrypted = row.encrypted and keys.reencrypt(row.encrypted)
    return len(rows)


def _of_all(
    system: System, session: Session, pool: PoolSpec, workspace: WorkspaceSpec, of_run: str | None
) -> SensitiveVariables:
    merged = SensitiveVariables()
    for kind, owner in ((Owner.POOL, pool), (Owner.WORKSPACE, workspace)):
        if owner.sensitive:
            merged = _merged(merged, _decrypted(system, secrets.variables(session, kind, owner.name)))
    return _merged(merged, _decrypted(system, of_run)) if of_run else merged


def _encrypted(keys: Keyring, variables: SensitiveVariables) -> str:
    return keys.encrypt(variables.model_dump(mode="json", exclude_defaults=True))


def _decrypted(system: System, encrypted: str | None) -> SensitiveVariables:
    return SensitiveVariables.model_validate(system.settings.keyring.decrypt(encrypted) if encrypted else {})


def _merged(under: SensitiveVariables, over: SensitiveVariables) -> SensitiveVariables:
    return SensitiveVariables(
        variables={**under.variables, **over.variables}, environment={**under.environment, **over.environment}
    )


def _without(values: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}
