"""How the objects of this control plane are told from all others in its namespace.

By two labels of its own, and no others: pods that a Deployment made may have any others, by which it knows them. What
is looked up by its name carries both in it as well.
"""

from workers.specs.pod_security import LABELS

TERRASLOT = "terraslot"
INSTANCE = f"{LABELS}instance"
POOL = f"{LABELS}pool"
BUSY = f"{LABELS}busy"
TEMPLATE = f"{LABELS}template"

# What people and their tools expect to find, and nothing here looks at.
RECOMMENDED = {"app.kubernetes.io/managed-by": TERRASLOT, "app.kubernetes.io/component": "agent"}


def of_pool(instance: str, pool: str) -> dict[str, str]:
    """Return the labels by which what belongs to a pool is found."""
    return {INSTANCE: instance, POOL: pool}


def object_name(kind: str, instance: str, pool: str) -> str:
    """Return the name of the one object of a kind that belongs to a pool.

    No name of an instance or a pool has a dot: no other pair makes the same name. Two of 63 characters stay well below
    the 253 that an object's name may have.
    """
    return f"{TERRASLOT}-{kind}.{instance}.{pool}"


def selector(instance: str, pool: str) -> str:
    """Return what selects the pods of a pool."""
    return f"{INSTANCE}={instance},{POOL}={pool}"
