"""What cycles and people share about one pool: its cycle's lock, its pods as they were listed, its status message."""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import structlog

from workers.core.pods import Pod, PodPhase, SafeToEvict
from workers.core.programs import PoolPrograms
from workers.protocol import names
from workers.protocol.errors import TerraslotError, Unavailable
from workers.services.system import System
from workers.slots.locks import renew_lock
from workers.specs.pools import PoolSpec
from workers.store import pools

log = structlog.get_logger(__name__)

_FIRST_PAUSE = 0.05
# Pods created between two looks at the lock: as many as the backend creates side by side, so that they take the time
# of one answer.
_AT_ONCE = 8
# Seconds that an ordinary start takes, for which nothing is said of it; and how many pods the cluster is asked about.
_ORDINARY_START = 10.0
_EXPLAINED_AT_MOST = 3


@contextmanager
def pool_lock(system: System, pool: str, *, wait: float = 60.0) -> Iterator[PoolSpec]:
    """Hold the lock of the pool's cycle; yield the pool's configuration as it is then.

    Raises :class:`UnknownPool`, and :class:`Unavailable` where the lock is not free within ``wait`` seconds. What takes
    long calls :func:`~workers.slots.locks.renew_lock` before it changes anything, as every change of pods does;
    :class:`LockLost` ends it where the lock has been lost.
    """
    system.pool(pool)
    lock, owner = system.lock(pool, "cycle"), uuid.uuid4().hex
    until, pause = time.monotonic() + wait, _FIRST_PAUSE
    while not lock.request(owner):
        if time.monotonic() + pause > until:
            raise Unavailable(f"The cycle of the pool {pool!r} still runs after {wait:g} s: try again.")
        time.sleep(pause)
        pause *= 2  # each request makes the holder do one more round, and has to come after that
    done = False
    try:
        with lock.held(owner):
            yield system.pool(pool)
        done = True
    finally:
        if lock.drop(owner) or not done:
            system.celery.send_task(names.CYCLE, args=[pool])


class PodSnapshot:
    """The pods of one pool. Raises :class:`Unavailable` where the cluster can't be asked."""

    def __init__(self, system: System, spec: PoolSpec) -> None:
        self.system = system
        self.spec = spec
        self._backend = system.pods(spec)
        self._pods = {pod.name: pod for pod in self._backend.list(spec.name)}

    @property
    def pods(self) -> list[Pod]:
        """The pods, as far as this process knows."""
        return list(self._pods.values())

    @property
    def template(self) -> str:
        """The :attr:`Pod.template` of pods that are made from the pool's present configuration."""
        return self._backend.template(self.spec)

    @property
    def outdated(self) -> list[Pod]:
        """The pods that were made from an earlier configuration of their pool."""
        template = self.template
        return [pod for pod in self._pods.values() if pod.template not in (None, template)]

    def cordoned_nodes(self) -> frozenset[str] | None:
        """Return the names of the nodes that take no new pods; None where that is not known."""
        if not any(pod.node for pod in self._pods.values()):
            return None
        try:
            return self._backend.cordoned_nodes()
        except TerraslotError as error:
            log.warning("nodes not read", pool=self.spec.name, why=str(error))
            return None

    def node_condition(self, pod: Pod) -> str | None:
        """Return ``Ready``, ``NotReady`` or ``deleted`` for the node of a pod; None where that is not known."""
        try:
            return self._backend.node_condition(pod.node) if pod.node else None
        except TerraslotError as error:
            log.warning("node not read", pool=self.spec.name, node=pod.node, why=str(error))
            return None

    def explain_starts(self) -> None:
        """Ask the cluster about pods that do not start and don't say why: about a few, those that wait longest."""
        mute = [pod for pod in self._pods.values() if pod.node and pod.phase is PodPhase.PENDING and not pod.reason]
        waiting = [pod for pod in mute if pod.age > _ORDINARY_START]
        for pod in sorted(waiting, key=lambda pod: -pod.age)[:_EXPLAINED_AT_MOST]:
            try:
                self._pods[pod.name] = replace(pod, reason=self._backend.start_problem(pod))
            except TerraslotError as error:
                log.warning("events not read", pool=self.spec.name, pod=pod.name, why=str(error))
                return

    def find(self, name: str) -> Pod | None:
        """Return the pod of that name."""
        return self._pods.get(name)

    def create(self, names: Sequence[str]) -> dict[str, TerraslotError]:
        """Create pods until one fails; return by name those that were not created. Raises :class:`LockLost`."""
        failures: dict[str, TerraslotError] = {}
        for start in range(0, len(names), _AT_ONCE):
            if failures:
                return failures | dict.fromkeys(names[start:], next(iter(failures.values())))
            batch = names[start : start + _AT_ONCE]
            renew_lock()
            failures = self._backend.create_all(self.spec, batch)
            created = (name for name in batch if name not in failures)
            self._pods |= {name: Pod(name, "", self.spec.name, 0.0, PodPhase.PENDING) for name in created}
        return failures

    def delete(self, pod: Pod, *, force: bool = False) -> None:
        """Delete a pod, as :meth:`PodBackend.delete`; it stays here while it ends. Raises :class:`LockLost`."""
        renew_lock()
        left = self._backend.delete(pod, force=force)
        if left is None:
            self._pods.pop(pod.name, None)
        else:
            self._pods[pod.name] = left

    def set_safe_to_evict(self, changes: Sequence[SafeToEvict]) -> dict[str, TerraslotError]:
        """Tell the cluster which pods it may evict; return errors by the pod's name. Raises :class:`LockLost`."""
        renew_lock()
        return self._backend.set_safe_to_evict(changes)


def status(system: System, name: str) -> str | None:
    """Return what keeps a pool from its desired state. Raises :class:`UnknownPool`."""
    with system.database.read() as session:
        return pools.status(session, name)


def set_status(system: System, pool: str, problem: str | None) -> None:
    """Store what keeps a pool from its desired state, until its next cycle says it anew; None where nothing does."""
    with system.database.begin() as session:
        pools.set_status(session, pool, problem, system.now())


def note_programs(system: System, pool: str, change: Callable[[PoolPrograms], PoolPrograms]) -> None:
    """Store which programs the agents of a pool have, as ``change`` makes it of what is stored."""
    with system.database.read() as session:
        known = pools.with_programs(session, pool)[1]
    if change(known) != known:
        with system.database.begin() as session:
            pools.change_programs(session, pool, change, system.now())
