"""A pool whose pods a Deployment runs becomes one of single pods, and the way back. No busy pod is ended for either.

While ``kubernetes.deployment`` of a pool names a Deployment, that one creates and deletes its pods: runs are given to
them, what is lost is seen, nothing is scaled here, and single pods leave. A Deployment that is being taken over leaves
single pods behind one by one; so ``kubernetes.adopting`` is set before the first is, and until all belong to the pool
no cycle lets any of them leave, however long ago whoever set it has died.
"""

from __future__ import annotations

import time

import structlog

from workers.cluster.kubernetes.backend import KubernetesPods
from workers.cluster.kubernetes.deployments import Deployments
from workers.protocol.errors import InvalidRequest, TerraslotError, Unavailable
from workers.services.pod_snapshot import PodSnapshot
from workers.services.pool_lock import pool_lock
from workers.services.pools.manage import get as get_pool
from workers.services.system import System
from workers.slots.locks import renew_lock
from workers.specs.pools import PoolSpec
from workers.store import pools

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 0.2


def adopt_deployment(system: System, pool: str, deployment: str, *, wait: float = 60.0) -> PoolSpec:
    """Make the pods of a Deployment single pods of ``pool``, with whatever they are doing; return the pool then.

    Scaling rests until it is done. Safe to repeat after a failure at any step. Raises :class:`InvalidRequest` where
    the pool is none of Kubernetes or there is no such Deployment, :class:`Unavailable` where the cluster has not
    carried it out within ``wait`` seconds, and :class:`LockLost`.
    """
    deployments = _deployments(system, get_pool(system, pool))
    deployments.expect(pool, deployment)
    with pool_lock(system, pool):
        _let_stay(system, get_pool(system, pool))
        _run_by(system, pool, deployment, adopting=True)
        _take_over(deployments, pool, deployment, wait)
        log.info("deployment taken over", pool=pool, deployment=deployment)
        return _run_by(system, pool, None)


def return_to_deployment(system: System, pool: str, deployment: str) -> int:
    """Give a pool back to the Deployment that it was taken over from; return how many single pods are left.

    From now on these get no runs, and go once they hold none: in every cycle, and whenever this is called again.
    Raises :class:`InvalidRequest` where no such Deployment was taken over, :class:`Unavailable` where that has not
    ended yet, and :class:`LockLost`.
    """
    with pool_lock(system, pool):
        _deployments(system, get_pool(system, pool)).put_back(pool, deployment)
        spec = _run_by(system, pool, deployment)
        log.info("pool given back", pool=pool, deployment=deployment)
        return release_to_deployment(system, spec, PodSnapshot(system, spec))


def label_pods(system: System, spec: PoolSpec) -> None:
    """Make the pods of a Deployment visible as those of their pool; it creates new ones without asking."""
    if spec.deployment:
        _deployments(system, spec).label_pods(spec.name, spec.deployment)


def release_to_deployment(system: System, spec: PoolSpec, listing: PodSnapshot) -> int:
    """Let the single pods of a pool that a Deployment runs drain, and delete those that hold nothing.

    Returns how many are left. While that Deployment is being taken over, none leaves.
    """
    if not spec.single_pods_leave:
        return 0
    slots = system.slots(spec.name)
    single = [pod for pod in listing.pods if not pod.controlled]
    for pod in single:
        slots.drain(pod.name)
        agent = slots.agent(pod.name)
        # One that has never registered holds nothing, and would register later as one that takes runs.
        if not pod.deleting and (agent is None or not agent.leases):
            try:
                listing.delete(pod)
            except TerraslotError as error:
                log.warning("pod not deleted", pool=spec.name, pod=pod.name, why=str(error))
    return sum(not pod.controlled for pod in listing.pods)


def _deployments(system: System, spec: PoolSpec) -> Deployments:
    backend = system.pods(spec)
    if not isinstance(backend, KubernetesPods):
        raise InvalidRequest(f"The pool {spec.name!r} is of type {spec.type!r}: only Kubernetes has Deployments.")
    return backend.deployments


def _let_stay(system: System, spec: PoolSpec) -> None:
    """Give runs again to single pods that were leaving.

    Before the pool is marked as being adopted: who dies in between has changed nothing, and whoever comes after the
    mark can't tell such a pod from one that an operator lets drain.
    """
    if spec.single_pods_leave and not spec.draining:
        for pod in PodSnapshot(system, spec).pods:
            if not pod.controlled and not pod.deleting:
                system.slots(spec.name).undrain(pod.name)


def _take_over(deployments: Deployments, pool: str, deployment: str, wait: float) -> None:
    until = time.monotonic() + wait
    while step := deployments.take_over(pool, deployment):
        if time.monotonic() > until:
            raise Unavailable(f"After {wait:g} s the pool {pool!r} still waits for {step}: do it again.")
        time.sleep(_LOOK_SECONDS)
        renew_lock()


def _run_by(system: System, pool: str, deployment: str | None, *, adopting: bool = False) -> PoolSpec:
    renew_lock()
    with system.database.begin() as session:
        spec = pools.get(session, pool)
        if spec.kubernetes is not None and (spec.deployment, spec.adopting) != (deployment, adopting):
            pods = spec.kubernetes.model_copy(update={"deployment": deployment, "adopting": adopting})
            spec = spec.model_copy(update={"kubernetes": pods})
            pools.update(session, spec, system.now())
        return spec
