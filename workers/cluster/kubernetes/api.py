"""The only speaker of the official Kubernetes client.

Every call has a time limit and is made once: the next cycle of a pool repeats what failed, and the client itself would
try four times against a server that hangs. Bodies are read as plain JSON: the client's models cost more than everything
else that is done with a list of pods.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Collection
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from workers.cluster.kubernetes.gate import Gate
from workers.cluster.kubernetes.outages import explain_outage
from workers.cluster.kubernetes.refusals import Call, Kind, Refusal, explain
from workers.core.errors import PodRefused
from workers.protocol.errors import InvalidRequest, Unavailable
from workers.protocol.validation import dotted, problems

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Json = dict[str, Any]

_CONNECT_SECONDS = 5.0  # the handshakes of TCP and TLS, with a packet that is sent again
# A write waits for admission webhooks, which have 10 s by default, and for etcd.
_READ_SECONDS = 20.0
_CONNECTIONS = 32  # for four threads with a batch of calls each
_NAMED_AT_MOST = 5  # problems of one object in a message
# What the client calls the API's verbs and resources, the latter with their class.
_VERBS = {"get": "read", "update": "replace"}
RESOURCES = {
    "pods": ("CoreV1Api", "pod"),
    "secrets": ("CoreV1Api", "secret"),
    "events": ("CoreV1Api", "event"),
    "nodes": ("CoreV1Api", "node"),
    "configmaps": ("CoreV1Api", "config_map"),
    "deployments": ("AppsV1Api", "deployment"),
    "replicasets": ("AppsV1Api", "replica_set"),
}
CLUSTER_WIDE = frozenset({"nodes"})
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_IN_CLUSTER = "KUBERNETES_SERVICE_HOST"


class Api:
    """One cluster, by a kubeconfig or by this pod's service account; the first call connects.

    ``read_seconds``: the longest wait for an answer; after a few calls in vain, ``gate`` holds others back.
    """

    def __init__(
        self, kubeconfig: str | None = None, namespace: str | None = None, *, read_seconds: float = _READ_SECONDS
    ) -> None:
        self._kubeconfig = kubeconfig
        self._namespace = namespace
        self._timeout = (min(_CONNECT_SECONDS, read_seconds), read_seconds)
        self.gate = Gate(_was_answered)
        self._client: ApiClient | None = None
        self._ahead = time.time() - time.monotonic()
        self._connecting = threading.Lock()

    @property
    def configured(self) -> bool:
        """Whether a setting, or an earlier call, names a cluster for this control plane."""
        return bool(self._kubeconfig or self._namespace or self._client)

    @property
    def namespace(self) -> str:
        """The namespace of all pools: as configured, else that of this pod or of the kubeconfig's context."""
        self._connected()
        return self._namespace or "default"

    def request(self, verb: str, resource: str, *name: str, accept: Collection[Kind] = (), **options: Any) -> Json:
        """Act on objects of the namespace or the cluster, or on the one of this name; return the answer's object.

        It is empty for a refusal to ``accept``. Raises what :func:`~workers.cluster.kubernetes.refusals.explain` makes
        of any other refusal, :class:`PodRefused` where the client itself finds the object invalid, and
        :class:`Unavailable` where no answer came in time, or where none has come for a while.
        """
        where = () if resource in CLUSTER_WIDE else (self.namespace,)
        what, method = Call(verb, resource, "".join(where), *name), self._method(verb, resource)
        from kubernetes.client.exceptions import ApiException  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        options |= {"_preload_content": False, "_request_timeout": self._timeout}
        try:
            with self.gate.call(str(what)):
                answer = method(*name, *where, **options)
                found: Json = json.loads(answer.data)
            self._ahead = (_date(answer) or time.time()) - time.monotonic()
        except ApiException as error:
            if not error.status:
                raise self._outage(error, str(what)) from error
            refusal = Refusal.of(error.status, error.reason, error.body)
            if refusal.kind in accept:
                return {}
            raise explain(refusal, what) from error
        except ValidationError as error:
            # Without values: what the object holds may be secret.
            wrong = problems(error, path=lambda path: dotted(path[1:]), at_most=_NAMED_AT_MOST)
            raise PodRefused(f"The client refuses to {what}: {'; '.join(wrong)}.") from error
        except (HTTPError, OSError, ValueError) as error:
            raise self._outage(error, str(what)) from error
        return found

    def find(self, resource: str, name: str) -> Json:
        """Return an object by its name; an empty one where there is none."""
        return self.request("get", resource, name, accept=(Kind.NOT_FOUND,))

    def delete(self, resource: str, name: str, uid: str, **how: Any) -> Json:
        """Delete the object of this name and uid, and return it as it is then; an empty one where it is gone."""
        body = {"preconditions": {"uid": uid}, **how}
        return self.request("delete", resource, name, body=body, accept=(Kind.NOT_FOUND, Kind.CONFLICT))

    def patch_pod(self, name: str, **metadata: Any) -> None:
        """Patch a pod's metadata, its ``uid`` among them; nothing where this pod is gone."""
        # Invalid: another pod has the name, and its uid can't be changed to the one of the patch.
        gone = (Kind.NOT_FOUND, Kind.CONFLICT, Kind.INVALID)
        self.request("patch", "pods", name, body={"metadata": metadata}, accept=gone)

    def now(self) -> float:
        """Return the API server's time, to a second, as its last answer told it; this machine's before the first."""
        return time.monotonic() + self._ahead

    def clock(self) -> float:
        """Ask the API server for its time, to a second. Raises :class:`Unavailable` where it does not answer."""
        from kubernetes.client import VersionApi  # noqa: PLC0415
        from kubernetes.client.exceptions import ApiException  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        try:
            answer: Any = VersionApi(self._connected()).get_code(_preload_content=False, _request_timeout=self._timeout)
        except (ApiException, HTTPError, OSError) as error:
            raise self._outage(error, "tell its time") from error
        return _date(answer) or time.time()

    def close(self) -> None:
        """Close all connections."""
        with self._connecting:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _method(self, verb: str, resource: str) -> Callable[..., Any]:
        from kubernetes import client  # noqa: PLC0415

        group, noun = RESOURCES[resource]
        scope = "" if resource in CLUSTER_WIDE else "namespaced_"
        method: Callable[..., Any] = getattr(
            getattr(client, group)(self._connected()), f"{_VERBS.get(verb, verb)}_{scope}{noun}"
        )
        return method

    def _outage(self, error: Exception, what: str) -> Unavailable:
        return explain_outage(error, what, str(self._connected().configuration.host), self._timeout[1])

    def _connected(self) -> ApiClient:
        with self._connecting:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> ApiClient:
        try:
            from kubernetes import client, config  # noqa: PLC0415
        except ImportError as error:
            raise InvalidRequest(
                "A pool of type 'kubernetes' needs the Kubernetes client: install terraslot[kubernetes]."
            ) from error
        if not self._kubeconfig and not os.environ.get(_IN_CLUSTER):
            raise Unavailable(
                "No cluster is configured: set TERRASLOT_KUBECONFIG to a kubeconfig, or run in a cluster."
            )
        configuration = client.Configuration()
        try:
            if self._kubeconfig:
                config.load_kube_config(self._kubeconfig, client_configuration=configuration, persist_config=False)
                _, active = config.list_kube_config_contexts(self._kubeconfig)
                self._namespace = self._namespace or active["context"].get("namespace")
            else:
                config.load_incluster_config(client_configuration=configuration)
                self._namespace = self._namespace or _NAMESPACE_FILE.read_text().strip()
        except Exception as error:
            # A kubeconfig can be wrong in every way that YAML, base64, PEM and programs that print tokens can be.
            where = f"The kubeconfig {self._kubeconfig}" if self._kubeconfig else "The service account of this pod"
            raise Unavailable(f"{where} can't be used: {_words(error)}. Check TERRASLOT_KUBECONFIG.") from error
        configuration.retries = False
        configuration.connection_pool_maxsize = _CONNECTIONS
        return client.ApiClient(configuration)


def _date(answer: Any) -> float | None:
    """Return when an answer was given; None where a proxy has removed that."""
    date = answer.headers.get("Date")
    return parsedate_to_datetime(date).timestamp() if date else None


def _was_answered(error: Exception) -> bool | None:
    from kubernetes.client.exceptions import ApiException  # noqa: PLC0415
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    if isinstance(error, ApiException):
        return bool(error.status)
    return False if isinstance(error, HTTPError | OSError) else None  # the client itself refuses some objects


def _words(problem: object) -> str:
    """Return a library's error in one line, without the addresses of objects in memory that some have."""
    reason = getattr(problem, "reason", None)
    text = str(reason or problem) or type(problem).__name__
    return text.partition(">: ")[2] or " ".join(text.split()).rstrip(".")
