"""What every use case works on, put together once in each process."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from celery import Celery

from workers.cluster import system_user
from workers.cluster.backend import PodBackend
from workers.cluster.kubernetes.api import Api
from workers.cluster.kubernetes.backend import KubernetesPods
from workers.cluster.local import LocalPods
from workers.settings import Settings, settings
from workers.slots.connection import Step, connect, run_together
from workers.slots.live_progress import LiveProgress
from workers.slots.locks import PoolLock
from workers.slots.slot_map import SlotMap
from workers.slots.wake_up import WakeUp
from workers.specs.pools import PoolSpec
from workers.store import pools
from workers.store.database import Database

if TYPE_CHECKING:
    from redis import Redis

    from workers.events import Events


@dataclass(frozen=True)
class System:
    """Settings, database, both servers (often one), the Celery app that sends messages, pod backends by pool type."""

    settings: Settings
    database: Database
    redis: Redis
    broker: Redis
    celery: Celery
    backends: Mapping[str, PodBackend]

    @property
    def servers(self) -> list[Redis]:
        """Both Redis servers; one where they are the same."""
        return list(dict.fromkeys((self.redis, self.broker)))

    @cached_property
    def events(self) -> Events:
        """What sends Celery events."""
        from workers.events import Events  # noqa: PLC0415 - most commands send none

        return Events(self.celery)

    def run_together(self, steps: Sequence[Step], on_broker: Sequence[Step]) -> list[Any]:
        """Run steps on both servers, in this order, in one round trip where they are one; return the broker's replies.

        See :func:`workers.slots.connection.run_together`.
        """
        if self.broker is self.redis:
            return run_together(self.redis, [*steps, *on_broker])[len(steps) :]
        run_together(self.redis, steps)
        return run_together(self.broker, on_broker)

    def slots(self, pool: str) -> SlotMap:
        """Return the slot map of a pool."""
        return SlotMap(self.redis, pool)

    def progress(self, pool: str, run: str) -> LiveProgress:
        """Return how far the phase of a run has come, as its agent says."""
        return LiveProgress(self.redis, pool, run)

    def lock(self, pool: str, job: str) -> PoolLock:
        """Return the lock that lets one process at a time do ``job`` for a pool."""
        return PoolLock(self.redis, pool, job)

    def wake_up(self, pool: str, job: str) -> WakeUp:
        """Return the message that asks a worker to do ``job`` for a pool."""
        return WakeUp(self.redis, pool, job)

    def pool(self, name: str) -> PoolSpec:
        """Return a pool's configuration. Raises :class:`UnknownPool` or :class:`Unreadable`."""
        with self.database.read() as session:
            return pools.get(session, name)

    def pool_names(self) -> list[str]:
        """Return the names of all pools, in order."""
        with self.database.read() as session:
            return pools.names(session)

    def pods(self, spec: PoolSpec) -> PodBackend:
        """Return the backend of a pool's pods."""
        return self.backends[spec.type]

    def now(self) -> datetime:
        """Return the time of this process, for records."""
        return datetime.fromtimestamp(time.time(), UTC)


def build(config: Settings, celery: Celery) -> System:
    """Put a system together. Nothing connects before it is used."""
    environment = {
        # The agent reads its user and password from its pool's Secret.
        "TERRASLOT_REDIS_URL": config.redis.public,
        "TERRASLOT_BROKER_URL": config.broker.public,
        "TERRASLOT_HEARTBEAT_SECONDS": str(config.heartbeat_seconds),
        "TERRASLOT_LOG_LEVEL": config.log_level,
        "TERRASLOT_LOG_FORMAT": config.log_format,
    }
    # In a Kubernetes pod, the image holds Terraform.
    given = {
        "TERRASLOT_TERRAFORM": config.terraform,
        "TERRASLOT_TERRAFORM_VERSIONS": config.terraform_versions,
        "TERRASLOT_INIT_CACHE_BYTES": str(config.init_cache_bytes),
        "TERRASLOT_INIT_CACHE_SECONDS": str(config.init_cache_seconds),
        "TERRASLOT_GIT_CACHE_BYTES": str(config.git_cache_bytes),
    }
    local = environment | {name: str(value) for name, value in given.items() if value}
    api = Api(config.kubeconfig, config.namespace)
    backends: dict[str, PodBackend] = {
        "local": LocalPods(config.home, local, user=system_user.named(config.local_user)),
        "kubernetes": KubernetesPods(api, instance=config.instance, environment=environment),
    }
    return replace(without_pods(config, celery), backends=backends)


def without_pods(config: Settings, celery: Celery) -> System:
    """Put together what a process needs that neither creates pods nor makes orders. Nothing connects yet."""
    redis = connect(config.redis)
    broker = redis if config.broker == config.redis else connect(config.broker)
    return System(config, Database(config.database), redis, broker, celery, backends={})


@cache
def system() -> System:
    """Return this process's system, from its settings."""
    from workers.app import app  # noqa: PLC0415 - a test builds its own

    return build(settings(), app)
