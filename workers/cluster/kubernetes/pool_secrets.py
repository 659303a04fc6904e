"""The Secrets of pools, each found by its name and recognized by its labels.

A Secret of that name without these labels is not the pool's: it is neither overwritten nor deleted.
"""

from __future__ import annotations

from workers.cluster.kubernetes import labels
from workers.cluster.kubernetes.api import Api, Json
from workers.cluster.kubernetes.manifest import pool_secret, secret_name
from workers.cluster.kubernetes.refusals import Kind
from workers.core.errors import PodRefused

# Another process wrote at the same moment: the next cycle compares again.
_LOST_RACE = (Kind.ALREADY_EXISTS, Kind.CONFLICT)


class PoolSecrets:
    """The Secrets of the pools of one control plane in one namespace."""

    def __init__(self, api: Api, instance: str) -> None:
        self._api = api
        self._instance = instance

    def put(self, pool: str, content: str) -> None:
        """Write a pool's Secret where it differs; of two writers at once the second changes nothing.

        Raises :class:`PodRefused` where another object has its name.
        """
        secret = pool_secret(pool, content, instance=self._instance)
        name = secret["metadata"]["name"]
        there = self._api.find("secrets", name)
        if not there:
            self._api.request("create", "secrets", body=secret, accept=_LOST_RACE)
        elif not self._is_of(pool, there):
            raise PodRefused(
                f"The Secret {name} in the namespace {self._api.namespace} is not this control plane's, and the pool "
                f"{pool!r} needs its name: delete or rename it."
            )
        elif there.get("data") != secret["data"]:
            secret["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"]
            self._api.request("update", "secrets", name, body=secret, accept=(*_LOST_RACE, Kind.NOT_FOUND))

    def delete(self, pool: str) -> None:
        """Delete a pool's Secret; nothing where there is none, or where it is not the pool's."""
        name = secret_name(pool, instance=self._instance)
        there = self._api.find("secrets", name)
        if self._is_of(pool, there):
            self._api.delete("secrets", name, there["metadata"]["uid"])

    def _is_of(self, pool: str, secret: Json) -> bool:
        return labels.of_pool(self._instance, pool).items() <= (secret.get("metadata", {}).get("labels") or {}).items()
