"""A pool whose pods a Deployment runs becomes one of single pods, and the way back. No pod is ended for either.

While ``kubernetes.deployment`` of a pool names a Deployment, that one creates and deletes its pods: runs are given to
them, what is lost is seen, and nothing is scaled here.
"""

from __future__ import annotations

import time

import structlog

from workers.cluster.kubernetes.backend import KubernetesPods
from workers.cluster.kubernetes.deployments import Deployments
from workers.core.errors import InvalidRequest, TerraslotError, Unavailable
from workers.core.pools import PoolSpec
from workers.services.listing import Listing
from workers.services.system import System
from workers.store import pools

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 0.2


def adopt_deployment(system: System, pool: str, deployment: str, *, wait: float = 60.0) -> PoolSpec:
    """Make the pods of a Deployment single pods of ``pool``, with whatever they are doing; return the pool then.

    Scaling rests until it is done. Safe to repeat after a failure at any step. Raises :class:`InvalidRequest` where
    the pool is none of Kubernetes or there is no such Deployment, and :class:`Unavailable` where the cluster has not
    carried it out within ``wait`` seconds.
    """
    deployments = _deployments(system, _get(system, pool))
    deployments.expect(pool, deployment)
    _run_by(system, pool, deployment)
    until = time.monotonic() + wait
    while step := deployments.take_over(pool, deployment):
        if time.monotonic() > until:
            raise Unavailable(f"After {wait:g} s the pool {pool!r} still waits for {step}: do it again.")
        time.sleep(_LOOK_SECONDS)
    log.info("deployment taken over", pool=pool, deployment=deployment)
    return _run_by(system, pool, None)


def return_to_deployment(system: System, pool: str, deployment: str) -> int:
    """Give a pool back to the Deployment that it was taken over from; return how many single pods are left.

    From now on these get no runs, and go once they hold none: in every cycle, and whenever this is called again.
    Raises :class:`InvalidRequest` where no such Deployment was taken over.
    """
    spec = _get(system, pool)
    _deployments(system, spec).put_back(pool, deployment)
    spec = _run_by(system, pool, deployment)
    log.info("pool given back", pool=pool, deployment=deployment)
    return leave_to_deployment(system, spec, Listing(system, spec))


def label_pods(system: System, spec: PoolSpec) -> None:
    """Make the pods of a Deployment visible as those of their pool; it creates new ones without asking."""
    if spec.deployment:
        _deployments(system, spec).label_pods(spec.name, spec.deployment)


def leave_to_deployment(system: System, spec: PoolSpec, listing: Listing) -> int:
    """Let the single pods of a pool that a Deployment runs drain, and delete those that hold nothing.

    Returns how many are left.
    """
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


def _get(system: System, pool: str) -> PoolSpec:
    with system.database.read() as session:
        return pools.get(session, pool)


def _run_by(system: System, pool: str, deployment: str | None) -> PoolSpec:
    with system.database.begin() as session:
        spec = pools.get(session, pool)
        if spec.kubernetes is not None and spec.deployment != deployment:
            pods = spec.kubernetes.model_copy(update={"deployment": deployment})
            spec = spec.model_copy(update={"kubernetes": pods})
            pools.update(session, spec, system.now())
        return spec
