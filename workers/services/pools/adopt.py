"""Adopts the pods of a Deployment as single pods of a pool, and releases them again. No busy pod is ended for either.

While ``kubernetes.deployment`` of a pool names a Deployment, that creates and deletes the pool's pods: they get runs,
their loss is noticed, the pool is not scaled, and single pods are released. A Deployment that is being adopted leaves
single pods behind one by one; so ``kubernetes.adopting`` is set before the first is left, and no cycle releases any pod
until all belong to the pool, even if the process that set it has died.
"""

import time

import structlog

from workers.cluster.kubernetes.deployments import Deployments
from workers.core.pods import Pod
from workers.protocol import names
from workers.protocol.errors import InvalidRequest, TerraslotError, Unavailable
from workers.services.pool_state import PodSnapshot, pool_lock
from workers.services.system import System
from workers.slots.locks import renew_lock
from workers.specs.pools import PoolSpec
from workers.store import pools

log = structlog.get_logger(__name__)

_POLL_SECONDS = 0.2  # the garbage collector needs about a second for a Deployment


def adopt_deployment(system: System, pool: str, deployment: str, *, wait: float = 60.0) -> PoolSpec:
    """Make the pods of a Deployment single pods of ``pool``, with their runs; return the pool then.

    The pool is not scaled until it is done. Safe to repeat after a failure at any step. Raises :class:`InvalidRequest`
    where the pool is not one of Kubernetes or there is no such Deployment, :class:`Unavailable` where the cluster has
    not carried it out within ``wait`` seconds, and :class:`LockLost`.
    """
    deployments = _deployments(system, system.pool(pool))
    deployments.expect(pool, deployment)
    with pool_lock(system, pool):
        _undrain_released(system, system.pool(pool))
        _set_deployment(system, pool, deployment, adopting=True)
        _adopt(deployments, pool, deployment, wait)
        log.info("deployment adopted", pool=pool, deployment=deployment)
        spec = _set_deployment(system, pool, None)
    system.celery.send_task(names.CYCLE, args=[pool])  # it protects those pods that are busy
    return spec


def return_to_deployment(system: System, pool: str, deployment: str) -> int:
    """Restore the Deployment that a pool has adopted, and release the single pods; return how many are left.

    They get no runs any more and are deleted when they hold none: in every cycle, and whenever this is called again.
    Raises :class:`InvalidRequest` where no such Deployment was adopted, :class:`Unavailable` while that is still under
    way, and :class:`LockLost`.
    """
    with pool_lock(system, pool):
        _deployments(system, system.pool(pool)).restore(pool, deployment)
        spec = _set_deployment(system, pool, deployment)
        log.info("deployment restored", pool=pool, deployment=deployment)
        return _release(system, spec)


def in_cycle(system: System, spec: PoolSpec) -> None:
    """Where a Deployment runs this pool, make its new pods the pool's, and release single pods.

    To be called before pods are listed: an agent whose pod has no labels yet would look lost.
    """
    if not spec.deployment:
        return
    _deployments(system, spec).label_pods(spec.name, spec.deployment)
    if spec.releases_single_pods:
        _release(system, spec)


def _release(system: System, spec: PoolSpec) -> int:
    """Drain the single pods of a pool, and delete those that hold nothing; return how many are left."""
    snapshot, slots = PodSnapshot(system, spec), system.slots(spec.name)
    for pod in _single(snapshot):
        slots.drain(pod.name)
        agent = slots.agent(pod.name)
        # An agent that has not registered yet holds nothing, and would get runs once it has.
        if not pod.deleting and (agent is None or not agent.leases):
            try:
                snapshot.delete(pod)
            except TerraslotError as error:
                log.warning("pod not deleted", pool=spec.name, pod=pod.name, why=str(error))
    return len(_single(snapshot))


def _single(snapshot: PodSnapshot) -> list[Pod]:
    return [pod for pod in snapshot.pods if not pod.controlled]


def _deployments(system: System, spec: PoolSpec) -> Deployments:
    deployments = system.pods(spec).deployments
    if deployments is None:
        raise InvalidRequest(f"The pool {spec.name!r} is of type {spec.type!r}: only Kubernetes has Deployments.")
    return deployments


def _undrain_released(system: System, spec: PoolSpec) -> None:
    """Give runs again to single pods that were being released.

    Before the pool is marked as adopting: a failure in between changes nothing, and after the mark such a pod looks
    like one that an operator drains.
    """
    if spec.releases_single_pods and not spec.draining:
        for pod in _single(PodSnapshot(system, spec)):
            if not pod.deleting:
                system.slots(spec.name).undrain(pod.name)


def _adopt(deployments: Deployments, pool: str, deployment: str, wait: float) -> None:
    until = time.monotonic() + wait
    while step := deployments.adopt(pool, deployment):
        if time.monotonic() > until:
            raise Unavailable(f"After {wait:g} s the pool {pool!r} still waits for {step}: do it again.")
        time.sleep(_POLL_SECONDS)
        renew_lock()


def _set_deployment(system: System, pool: str, deployment: str | None, *, adopting: bool = False) -> PoolSpec:
    renew_lock()
    with system.database.begin() as session:
        spec = pools.get(session, pool)
        if spec.kubernetes is not None and (spec.deployment, spec.adopting) != (deployment, adopting):
            pods = spec.kubernetes.model_copy(update={"deployment": deployment, "adopting": adopting})
            spec = spec.model_copy(update={"kubernetes": pods})
            pools.update(session, spec, system.now())
        return spec
