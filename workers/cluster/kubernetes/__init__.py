"""Pods of a Kubernetes cluster, behind the interface that local pods have.

:mod:`~workers.cluster.kubernetes.manifest` and :mod:`~workers.cluster.kubernetes.pod_status` are pure: a pool's
configuration to a pod, a pod to what the rest of the system knows of it. The official client is spoken to by
:mod:`~workers.cluster.kubernetes.api` alone, and imported when the first pool needs it: a control plane with local
pools does without.
"""
