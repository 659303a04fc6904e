"""The Secrets of pools, each found by its name and known by its labels.

What carries that name without these labels is somebody else's: it is neither written over nor deleted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workers.cluster.kubernetes import labels
from workers.cluster.kubernetes.api import Api, Json
from workers.cluster.kubernetes.manifest import pool_secret, secret_name
from workers.cluster.kubernetes.refusals import Call, Refused, explain
from workers.core.errors import PodRefused


class PoolSecrets:
    """The Secrets of the pools of one control plane in one namespace."""

    def __init__(self, api: Api, instance: str) -> None:
        self._api = api
        self._instance = instance

    def put(self, pool: str, content: str) -> None:
        """Write a pool's Secret where it differs, over the state that was read: two writers at once do no harm.

        Raises :class:`PodRefused` where another object has its name.
        """
        secret = pool_secret(pool, content, instance=self._instance)
        name = secret["metadata"]["name"]
        there = self._read(name)
        if there is None:
            self._write("create", name, self._api.core.create_namespaced_secret, self._api.namespace, secret)
        elif not self._is_of(pool, there):
            raise PodRefused(
                f"The Secret {name} in the namespace {self._api.namespace} is not this control plane's: agents of the "
                f"pool {pool!r} can't have theirs while it is there."
            )
        elif there.get("data") != secret["data"]:
            secret["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"]
            self._write("update", name, self._api.core.replace_namespaced_secret, name, self._api.namespace, secret)

    def delete(self, pool: str) -> None:
        """Delete exactly the Secret that was looked at; nothing where there is none, or one that is not the pool's."""
        name = secret_name(pool, instance=self._instance)
        there = self._read(name)
        if there is None or not self._is_of(pool, there):
            return
        options = {"preconditions": {"uid": there["metadata"]["uid"]}}
        delete = self._api.core.delete_namespaced_secret
        self._write("delete", name, delete, name, self._api.namespace, body=options)

    def _is_of(self, pool: str, secret: Json) -> bool:
        return labels.of_pool(self._instance, pool).items() <= (secret["metadata"].get("labels") or {}).items()

    def _read(self, name: str) -> Json | None:
        call = Call("get", "secrets", self._api.namespace, name)
        try:
            return self._api.call(call, self._api.core.read_namespaced_secret, name, call.namespace)
        except Refused as error:
            if error.refusal.not_found:
                return None
            raise explain(error.refusal, call) from error

    def _write(self, verb: str, name: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        call = Call(verb, "secrets", self._api.namespace, name)
        try:
            self._api.call(call, function, *arguments, **options)
        except Refused as error:
            # Somebody else wrote, or deleted, at the same moment; who wants it otherwise looks again.
            gone = error.refusal.not_found and verb != "create"
            if not (gone or error.refusal.already_exists or error.refusal.conflict):
                raise explain(error.refusal, call) from error
