"""What nodes say of themselves, where this control plane may read them: `agents.watchNodes` in the chart.

Nodes belong to the whole cluster, so that an ordinary installation may not read them. That is no error: nothing is
known of them then, and it is asked again some minutes later.
"""

import time
from collections.abc import Callable

from workers.cluster.kubernetes.api import Api, Json
from workers.core.errors import NotPermitted

_ASK_AGAIN_SECONDS = 300.0
_CORDONED = "spec.unschedulable=true"


class Nodes:
    """The nodes of one cluster."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._ask_from = 0.0

    def cordoned(self) -> frozenset[str] | None:
        """Return the names of the nodes that take no new pods; None where nodes can't be read."""
        # The server's cache is enough: what it does not know yet is seen in the next cycle.
        found = self._if_permitted(
            lambda: self._api.request("list", "nodes", field_selector=_CORDONED, resource_version="0")
        )
        return None if found is None else frozenset(node["metadata"]["name"] for node in found["items"])

    def condition(self, name: str) -> str | None:
        """Return ``Ready``, ``NotReady`` or ``deleted``; None where nodes can't be read."""
        found = self._if_permitted(lambda: self._api.find("nodes", name))
        if not found:
            return None if found is None else "deleted"
        conditions = found.get("status", {}).get("conditions") or ()
        ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
        return "Ready" if ready else "NotReady"

    def _if_permitted(self, call: Callable[[], Json]) -> Json | None:
        if time.monotonic() < self._ask_from:
            return None
        try:
            return call()
        except NotPermitted:
            self._ask_from = time.monotonic() + _ASK_AGAIN_SECONDS
            return None
