"""Credentials of pools: a Redis user and a payload key for each pool, published in its Secret, rotated by overlap.

Every cycle does all of this again, and changes nothing where nothing is due: it restores the users that a restarted
Redis does not have any more, and a Secret that was deleted.
"""

import secrets
from typing import assert_never

import structlog
from pydantic import BaseModel, ConfigDict, Field

from workers.core.rotation import RULES, Credential, Disconnect, Issue, Retire, Step, encrypting_generation, rotation
from workers.protocol.encryption import Keyring, new_key
from workers.protocol.errors import TerraslotError, Unavailable
from workers.protocol.pool_secret import PoolSecret
from workers.protocol.version import PROTOCOL, protocol_of
from workers.services.pool_state import pool_lock
from workers.services.system import System
from workers.slots import acl, verbs
from workers.slots.acl import Users
from workers.specs.pools import PoolSpec
from workers.store import secrets as stored
from workers.store.database import Session
from workers.store.models import PoolCredential

log = structlog.get_logger(__name__)

_DAY = 86_400.0
_PASSWORD_BYTES = 32  # 256 bits, as many as a Fernet key has


class _Content(BaseModel):
    """What is stored of a generation, encrypted. ``rules`` are those that it was issued with."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    password: str = Field(repr=False)
    payload_key: str = Field(repr=False)
    rules: int = 1


_Generations = list[tuple[Credential, _Content]]  # the oldest first


def ensure_secret_for_pool(system: System, spec: PoolSpec) -> None:
    """Make sure that the pool has a credential, Redis its user, and the cluster its Secret."""
    check_and_rotate_secret(system, spec)


def check_and_rotate_secret(system: System, spec: PoolSpec, *, requested: bool = False) -> list[str]:
    """Do what the pool's credentials need now, and publish them; return a line for each step that was done.

    ``requested`` begins a rotation whatever the age of the newest. Raises :class:`InvalidRequest` where no key is set
    to encrypt with, and :class:`Unavailable` where the cluster can't be asked.
    """
    found = _read(system, spec.name)
    in_use = {user for users in _users(system) for user in users.in_use()} if len(found) > 1 else set()
    steps = rotation(
        [credential for credential, _ in found],
        in_use,
        system.now().timestamp(),
        max_age=system.settings.credential_days * _DAY,
        requested=requested,
        older_agents=any(credential.rules < RULES for credential, _ in found) and _older_agents(system, spec.name),
    )
    for issue in (step for step in steps if isinstance(step, Issue)):
        _issue(system, spec.name, issue.generation)
        found = _read(system, spec.name)
    _publish(system, spec, found)
    return [_perform(system, step) for step in steps]


def rotate(system: System, pool: str) -> list[str]:
    """Begin a rotation now, as :func:`check_and_rotate_secret` does. Also raises :class:`UnknownPool`."""
    with pool_lock(system, pool) as spec:
        return check_and_rotate_secret(system, spec, requested=True)


def payload_keyring(system: System, session: Session, pool: str) -> Keyring:
    """Return the newest key for orders that all agents of a pool have. Raises :class:`Unavailable` without any."""
    found = _decrypted(system, session, pool)
    if not found:
        raise Unavailable(f"The pool {pool!r} has no Secret yet: its next cycle makes one.")
    generation = encrypting_generation([credential for credential, _ in found], system.now().timestamp())
    key = next(content.payload_key for credential, content in found if credential.generation == generation)
    return Keyring([key], f"the Secret of pool {pool}")


def all_payload_keys(system: System, session: Session, pool: str) -> Keyring:
    """Return the keys of which an agent of a pool may have used any."""
    found = _decrypted(system, session, pool)
    return Keyring([content.payload_key for _, content in reversed(found)], f"the Secret of pool {pool}")


def purge(system: System, spec: PoolSpec) -> None:
    """Remove every user of a pool that is being deleted, then its Secret."""
    with system.database.read() as session:
        generations = [_credential(row) for row in stored.credentials(session, spec.name)]
    for credential in generations:
        _retire(system, credential)
    try:
        system.pods(spec).delete_secret(spec)
    except TerraslotError as error:  # without the users it is worth nothing: the cluster may keep it
        log.warning("secret not deleted", pool=spec.name, why=str(error))


def _read(system: System, pool: str) -> _Generations:
    with system.database.read() as session:
        return _decrypted(system, session, pool)


def _decrypted(system: System, session: Session, pool: str) -> _Generations:
    keys, rows = system.settings.keyring, stored.credentials(session, pool)
    contents = [_Content.model_validate(keys.decrypt(row.encrypted)) for row in rows]
    return [(_credential(row, content.rules), content) for row, content in zip(rows, contents, strict=True)]


def _credential(row: PoolCredential, rules: int = RULES) -> Credential:
    disconnected = row.disconnected_at.timestamp() if row.disconnected_at else None
    return Credential(row.pool, row.generation, row.created_at.timestamp(), disconnected, rules)


def _older_agents(system: System, pool: str) -> bool:
    """Whether agents before 0.2 are there, which need the rules that their credential was issued with."""
    return any(protocol_of(agent.instance_id) < PROTOCOL for agent in system.slots(pool).snapshot())


def _users(system: System) -> list[Users]:
    """Return the users of each server: none where an operator provides one for all pools."""
    if system.settings.shared_agent_username:
        return []
    return [Users(client) for client in system.servers]


def _issue(system: System, pool: str, generation: int) -> None:
    content = _Content(password=secrets.token_urlsafe(_PASSWORD_BYTES), payload_key=new_key(), rules=RULES)
    encrypted = system.settings.keyring.encrypt(content.model_dump())
    with system.database.begin() as session:
        stored.issue(session, pool, generation, encrypted, system.now())


def _publish(system: System, spec: PoolSpec, generations: _Generations) -> None:
    for users in _users(system):
        for credential, content in generations:
            rules = acl.acl_rules if credential.rules == RULES else acl.older_rules
            users.put(credential.username, content.password, rules(spec.name))
    verbs.load_agents_verbs(system.redis)
    newest, content = generations[-1]
    config = system.settings
    secret = PoolSecret(
        username=config.shared_agent_username or newest.username,
        password=config.shared_agent_password.get_secret_value() or content.password,
        payload_keys=tuple(content.payload_key for _, content in reversed(generations)),
        redis_tls=config.redis.contents(),
        broker_tls=config.broker.contents(),
    )
    system.pods(spec).put_secret(spec, secret.model_dump_json(exclude_defaults=True))


def _perform(system: System, step: Step) -> str:
    """Perform a step that follows the publication; return a line about it."""
    match step:
        case Issue(generation):
            return f"generation {generation} issued"
        case Disconnect(credential):
            for users in _users(system):
                users.disconnect(credential.username)
            with system.database.begin() as session:
                stored.disconnected(session, credential.pool, credential.generation, system.now())
            return f"generation {credential.generation} disconnected"
        case Retire(credential):
            _retire(system, credential)
            return f"generation {credential.generation} retired"
        case _:
            assert_never(step)


def _retire(system: System, credential: Credential) -> None:
    for users in _users(system):
        users.remove(credential.username)
    with system.database.begin() as session:
        stored.retire(session, credential.pool, credential.generation)
