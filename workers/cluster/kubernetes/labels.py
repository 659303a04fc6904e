"""How the objects of this control plane are told from all others in its namespace."""

from __future__ import annotations

from collections.abc import Collection

from workers.core.kubernetes import LABELS

MANAGED_BY = "app.kubernetes.io/managed-by"
INSTANCE = "app.kubernetes.io/instance"
COMPONENT = "app.kubernetes.io/component"
TERRASLOT = "terraslot"
POOL = f"{LABELS}pool"
BUSY = f"{LABELS}busy"


def of_pool(instance: str, pool: str) -> dict[str, str]:
    """Return the labels of everything that belongs to a pool."""
    return {MANAGED_BY: TERRASLOT, INSTANCE: instance, COMPONENT: "agent", POOL: pool}


def selector(instance: str, pool: str) -> str:
    """Return what selects the pods of a pool."""
    return f"{_ours(instance)},{POOL}={pool}"


def stray_selector(instance: str, pools: Collection[str]) -> str:
    """Return what selects the pods of this control plane that belong to none of these pools."""
    known = f",{POOL} notin ({','.join(sorted(pools))})" if pools else ""
    return f"{_ours(instance)},{POOL}{known}"


def _ours(instance: str) -> str:
    # Two control planes may share a namespace: neither sees, and so neither deletes, what is the other's.
    return f"{MANAGED_BY}={TERRASLOT},{INSTANCE}={instance}"
