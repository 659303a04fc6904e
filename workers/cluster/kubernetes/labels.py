"""How the objects of this control plane are told from all others in its namespace.

By two labels of its own, and no others: pods that a Deployment made may have any others, by which it knows them.
"""

from __future__ import annotations

from collections.abc import Collection

from workers.core.pod_template import LABELS

TERRASLOT = "terraslot"
INSTANCE = f"{LABELS}instance"
POOL = f"{LABELS}pool"
BUSY = f"{LABELS}busy"

# What people and their tools expect to find, and nothing here looks at.
RECOMMENDED = {"app.kubernetes.io/managed-by": TERRASLOT, "app.kubernetes.io/component": "agent"}


def of_pool(instance: str, pool: str) -> dict[str, str]:
    """Return the labels by which what belongs to a pool is found."""
    return {INSTANCE: instance, POOL: pool}


def selector(instance: str, pool: str) -> str:
    """Return what selects the pods of a pool."""
    return f"{INSTANCE}={instance},{POOL}={pool}"


def stray_selector(instance: str, pools: Collection[str]) -> str:
    """Return what selects the pods of this control plane that belong to none of these pools.

    Two control planes may share a namespace: neither sees, and so neither deletes, what is the other's.
    """
    others = f",{POOL} notin ({','.join(sorted(pools))})" if pools else ""
    return f"{INSTANCE}={instance},{POOL}{others}"
