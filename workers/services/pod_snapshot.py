"""The pods of a pool as they were listed, updated by what this process does to them: a cycle lists them once.

Before each change the pool's lock is renewed, where one is held: without it another process may have changed the pods
since they were listed, and pods that are created then may be more than the pool may have.
"""

from collections.abc import Sequence

from workers.core.pods import Pod, PodPhase, SafeToEvict
from workers.protocol.errors import TerraslotError
from workers.services.system import System
from workers.slots.locks import renew_lock
from workers.specs.pools import PoolSpec

# Pods created between two renewals of the lock: as many as the backend creates side by side, so that they take the time
# of one answer.
_AT_ONCE = 8


class PodSnapshot:
    """The pods of one pool. Raises :class:`Unavailable` where the cluster can't be asked."""

    def __init__(self, system: System, spec: PoolSpec) -> None:
        self._system = system
        self._spec = spec
        self._backend = system.pods(spec)
        self._pods = {pod.name: pod for pod in self._backend.list(spec.name)}

    @property
    def pods(self) -> list[Pod]:
        """The pods, as far as this process knows."""
        return list(self._pods.values())

    @property
    def outdated(self) -> list[Pod]:
        """The pods that were made from an earlier configuration of their pool."""
        template = self._backend.template(self._spec)
        return [pod for pod in self._pods.values() if pod.template not in (None, template)]

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
            failures = self._backend.create_all(self._spec, batch)
            now, created = self._system.now().timestamp(), (name for name in batch if name not in failures)
            self._pods |= {name: Pod(name, "", self._spec.name, now, PodPhase.PENDING) for name in created}
        return failures

    def delete(self, pod: Pod) -> None:
        """Delete a pod; it stays in the snapshot while it ends. Raises :class:`LockLost`."""
        renew_lock()
        left = self._backend.delete(pod)
        if left is None:
            self._pods.pop(pod.name, None)
        else:
            self._pods[pod.name] = left

    def set_safe_to_evict(self, changes: Sequence[SafeToEvict]) -> dict[str, TerraslotError]:
        """Tell the cluster which pods it may evict; return errors by the pod's name. Raises :class:`LockLost`."""
        renew_lock()
        return self._backend.set_safe_to_evict(changes)
