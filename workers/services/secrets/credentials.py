"""Pools' Secrets: a Redis user and a payload key of each pool's own, rotated without anybody noticing.

Everything here is done again in every cycle and changes nothing where nothing is due: users that a restarted Redis
forgot are there again, a Secret that somebody deleted is too.
"""

from __future__ import annotations

import json
import secrets as random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from workers.core.rotation import Credential, Disconnect, Issue, Retire, encrypting_generation, rotation
from workers.protocol.encryption import Keyring, new_key
from workers.protocol.errors import TerraslotError, Unavailable
from workers.services.pool_lock import pool_lock
from workers.services.system import System
from workers.slots import acl
from workers.specs.pools import PoolSpec
from workers.store import pools, secrets
from workers.store.models import PoolCredential

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

log = structlog.get_logger(__name__)

_DAY = 86_400.0
_PASSWORD_BYTES = 32


@dataclass(frozen=True, slots=True)
class _Opened:
    credential: Credential
    password: str = field(repr=False)
    payload_key: str = field(repr=False)


def ensure_secret_for_pool(system: System, spec: PoolSpec) -> None:
    """Make sure that the pool has a credential, Redis its user, and the cluster its Secret."""
    check_and_rotate_secret(system, spec)


def check_and_rotate_secret(system: System, spec: PoolSpec, *, wanted: bool = False) -> list[str]:
    """Do what the pool's credentials need now, and publish them; return the steps that were done, in words.

    ``wanted`` begins a rotation whatever the age of the newest. Raises :class:`InvalidRequest` where no key is set
    to encrypt with, and :class:`Unavailable` where the cluster can't be asked.
    """
    opened = _read(system, spec.name)
    in_use = acl.users_in_use(system.redis) if len(opened) > 1 else set()
    steps = rotation(
        [one.credential for one in opened],
        in_use,
        system.now().timestamp(),
        max_age=system.settings.credential_days * _DAY,
        wanted=wanted,
    )
    for issue in (step for step in steps if isinstance(step, Issue)):
        _issue(system, spec.name, issue.generation)
        opened = _read(system, spec.name)
    _publish(system, spec, opened)
    for step in steps:
        _end(system, step)
    return [_words(step) for step in steps]


def rotate(system: System, pool: str) -> list[str]:
    """Begin a rotation now; return the steps that were done, in words. Raises as :func:`check_and_rotate_secret`.

    Also :class:`UnknownPool`.
    """
    with system.database.read() as session:
        spec = pools.get(session, pool)
    with pool_lock(system, pool):
        return check_and_rotate_secret(system, spec, wanted=True)


def payload_keyring(system: System, session: Session, pool: str) -> Keyring:
    """Return what encrypts orders for a pool: the newest key that every agent of it has.

    Raises :class:`Unavailable` where the pool has no credential yet.
    """
    opened = _opened(system, session, pool)
    if not opened:
        raise Unavailable(f"The pool {pool!r} has no Secret yet: its next cycle makes one.")
    generation = encrypting_generation([one.credential for one in opened], system.now().timestamp())
    key = next(one.payload_key for one in opened if one.credential.generation == generation)
    return Keyring([key], f"the Secret of pool {pool}")


def forget_pool(system: System, spec: PoolSpec) -> None:
    """Remove every user of a pool that is deleted, then its Secret, which opens nothing any more.

    A cluster that does not answer keeps the Secret, and nobody from deleting the pool.
    """
    with system.database.read() as session:
        generations = [_credential(row) for row in secrets.credentials(session, spec.name)]
    for credential in generations:
        acl.remove_user(system.redis, credential.username)
        _retire(system, credential)
    try:
        system.pods(spec).delete_secret(spec)
    except TerraslotError as error:
        log.warning("secret not deleted", pool=spec.name, why=str(error))


def _read(system: System, pool: str) -> list[_Opened]:
    with system.database.read() as session:
        return _opened(system, session, pool)


def _opened(system: System, session: Session, pool: str) -> list[_Opened]:
    return [_open(system, row) for row in secrets.credentials(session, pool)]


def _open(system: System, row: PoolCredential) -> _Opened:
    content = system.settings.keyring.decrypt(row.encrypted)
    return _Opened(_credential(row), content["password"], content["payload_key"])


def _credential(row: PoolCredential) -> Credential:
    disconnected = row.disconnected_at.timestamp() if row.disconnected_at else None
    return Credential(row.pool, row.generation, row.created_at.timestamp(), disconnected)


def _issue(system: System, pool: str, generation: int) -> None:
    content = {"password": random.token_urlsafe(_PASSWORD_BYTES), "payload_key": new_key()}
    with system.database.begin() as session:
        secrets.issue(session, pool, generation, system.settings.keyring.encrypt(content), system.now())


def _publish(system: System, spec: PoolSpec, opened: list[_Opened]) -> None:
    for one in opened:
        acl.put_user(system.redis, spec.name, one.credential.username, one.password)
    newest_first = opened[::-1]
    content = {
        "username": newest_first[0].credential.username,
        "password": newest_first[0].password,
        "payload_keys": [one.payload_key for one in newest_first],
    }
    system.pods(spec).put_secret(spec, json.dumps(content))


def _end(system: System, step: object) -> None:
    match step:
        case Disconnect(credential):
            acl.disconnect(system.redis, credential.username)
            with system.database.begin() as session:
                secrets.disconnected(session, credential.pool, credential.generation, system.now())
        case Retire(credential):
            acl.remove_user(system.redis, credential.username)
            _retire(system, credential)


def _retire(system: System, credential: Credential) -> None:
    with system.database.begin() as session:
        secrets.retire(session, credential.pool, credential.generation)


def _words(step: object) -> str:
    match step:
        case Issue(generation):
            return f"generation {generation} issued"
        case Disconnect(credential):
            return f"generation {credential.generation} disconnected"
        case Retire(credential):
            return f"generation {credential.generation} retired"
    raise TypeError(f"{step!r} is not a step")
