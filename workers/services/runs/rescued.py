"""What a rescued state holds: encrypted with the platform's keys once it has arrived, shown, and sent to be pushed.

The report reader stores a state as its agent has encrypted it. A control worker has the keys of both.
"""

import structlog

from workers.core.errors import IllegalTransition, NoRescuedState
from workers.protocol.encryption import NoKey
from workers.protocol.messages import Order
from workers.protocol.states import unpack
from workers.services.errors import isolate
from workers.services.runs import states
from workers.services.secrets.credentials import all_payload_keys, payload_keyring
from workers.services.system import System
from workers.slots.state_parcel import StateParcel
from workers.store import runs
from workers.store import states as stored
from workers.store.database import Session
from workers.store.models import Run

log = structlog.get_logger(__name__)


def reencrypt(system: System) -> None:
    """Encrypt the states that have arrived with the platform's keys, while their pools' payload keys last."""
    with system.database.read() as session:
        waiting = stored.in_transit(session)
    for run_id in waiting:
        with isolate("state not encrypted with the platform's keys", run=run_id):
            try:
                _reencrypt(system, run_id)
            except NoKey as error:  # an agent may send anything: that concerns its run alone
                log.warning("state can't be decrypted", run=run_id, why=str(error))


def reencrypt_all(system: System) -> int:
    """Encrypt all states with the first of the platform's keys, one at a time, for they are large; return how many."""
    with system.database.read() as session:
        kept = stored.with_content(session)
    for run_id in kept:
        with system.database.begin() as session:
            if packed := _content(session, run_id):  # else it was pushed meanwhile
                stored.replace(session, run_id, system.settings.keyring.reencrypt(packed), expect=packed)
    return len(kept)


def content(system: System, run_id: str) -> bytes:
    """Return the state that a run could not save. Raises as :func:`states.push` does."""
    return unpack(_packed(system, states.kept(system, run_id)))


def hand_over(system: System, order: Order, pool: str) -> None:
    """Send the state that an order is about to push, encrypted for the agents of its pool.

    Where another run has pushed it meanwhile there is none, and the agent says so.
    """
    step = order.options.state
    if step is None or step.push is None:
        return
    try:
        packed = _packed(system, states.kept(system, step.push))
    except (IllegalTransition, NoRescuedState) as error:
        log.info("no state to be pushed", run=order.run, why=str(error))
        return
    with system.database.read() as session:
        keys = payload_keyring(system, session, pool)
    StateParcel(system.redis, pool, order.run).put(keys.encrypt_bytes(packed))


def _reencrypt(system: System, run_id: str) -> None:
    with system.database.begin() as session:
        there, pool = _content(session, run_id), runs.get(session, run_id).pool
        packed = all_payload_keys(system, session, pool).decrypt_bytes(there)
        stored.replace(session, run_id, system.settings.keyring.encrypt_bytes(packed), expect=there)


def _packed(system: System, run: Run) -> bytes:
    with system.database.read() as session:
        in_transit, there = states.record(session, run).in_transit, _content(session, run.id)
        keys = all_payload_keys(system, session, run.pool) if in_transit else system.settings.keyring
    return keys.decrypt_bytes(there)


def _content(session: Session, run_id: str) -> str:
    found = stored.of(session, run_id)
    return (found.content if found else None) or ""
