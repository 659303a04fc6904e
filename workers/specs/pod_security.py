"""What every pod of a pool is by default, what no pod may be, and what in a pod only the platform sets.

An agent runs other people's Terraform. So it is neither root nor privileged, can't become so, and shares nothing of
its node. :func:`violations` looks at the whole pod, after the pool's template was merged in: removing a default is
refused as well as asking for the opposite.
"""

from collections.abc import Callable, Iterable, Iterator
from operator import not_
from typing import Any

AGENT_USER = 10001  # the user of the agent image, in the Dockerfile
WORK_VOLUME, SECRET_VOLUME, TEMPORARY_VOLUME = "work", "secret", "tmp"

LABELS = "terraslot.dev/"
SAFE_TO_EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict"
DO_NOT_DISRUPT = "karpenter.sh/do-not-disrupt"
_OUR_KEYS = ("app.kubernetes.io/managed-by", "app.kubernetes.io/instance", SAFE_TO_EVICT, DO_NOT_DISRUPT)

CONTAINER: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "privileged": False,
    "readOnlyRootFilesystem": True,
}

Problem = tuple[str, str]  # a path and a sentence
# A path, in which ``*`` is every item of a list or every key of a mapping; what is allowed there; the sentence if not.
Rule = tuple[str, Callable[[Any], bool], str]

_POD: tuple[Rule, ...] = (
    ("hostNetwork", not_, "may not share the network of its node"),
    ("hostPID", not_, "may not see the processes of its node"),
    ("hostIPC", not_, "may not share the memory of its node's processes"),
    ("hostUsers", lambda shared: shared is not True, "may not share the users of its node: leave it unset"),
    ("securityContext.sysctls", not_, "may not change its kernel's settings"),
    ("volumes.*.*", lambda field: field != "hostPath", "may not mount directories of its node"),
)
# As in Kubernetes' "restricted" level; so are the capabilities below.
_SECCOMP = ("RuntimeDefault", "Localhost")
_CONTAINER: tuple[Rule, ...] = (
    ("privileged", not_, "may not be privileged"),
    ("allowPrivilegeEscalation", lambda allowed: allowed is False, "may not become root: this has to be false"),
    ("procMount", lambda kind: kind in (None, "Default"), "may not see more of /proc than others"),
    ("capabilities.drop", lambda names: "ALL" in (names or ()), "drops ALL capabilities"),
    ("capabilities.add", lambda names: {*(names or ())} <= {"NET_BIND_SERVICE"}, "may add NET_BIND_SERVICE only"),
)
# What the security context of a container leaves out here is that of its pod.
_INHERITED: tuple[Rule, ...] = (
    ("runAsUser", lambda user: user != 0, "may not run as root"),
    ("runAsNonRoot", lambda enforced: enforced is True, "may not run as root: this has to stay true"),
    ("seccompProfile", lambda used: (used or {}).get("type") in _SECCOMP, "keeps a seccomp profile"),
    ("windowsOptions.hostProcess", not_, "may not run in its node"),
)
_PORTS: Rule = ("ports.*.hostPort", not_, "may not take a port of its node")


def is_free(key: str) -> bool:
    """Whether a label or an annotation is a pool's to set, and not the platform's."""
    return not key.startswith(LABELS) and key not in _OUR_KEYS


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and name != ""


def _is_free_variable(name: Any) -> bool:
    return not str(name).startswith("TERRASLOT_")


def _is_free_volume(name: Any) -> bool:
    return name not in (WORK_VOLUME, SECRET_VOLUME, TEMPORARY_VOLUME)


def _has_mappings(*keys: str) -> Callable[[Any], bool]:
    """Whether these keys are mappings or absent: null would remove what the platform sets."""
    return lambda found: all(isinstance((found or {}).get(key, {}), dict) for key in keys)


_OURS = "{!r} belongs to the platform and can't be set"
_FIELDS: tuple[Rule, ...] = (
    ("env.*.name", _is_name, "a name is missing"),
    ("env.*.name", _is_free_variable, _OURS),
    ("volumes.*.name", _is_name, "a name is missing"),
    ("volumes.*.name", _is_free_volume, _OURS),
    (
        "volumes.*.*",
        lambda field: field != "hostPath",
        "a pod that runs Terraform may not mount its node's directories",
    ),
    ("pod_template.*", lambda key: key in ("metadata", "spec"), "a pod template has 'metadata' and 'spec' only"),
    ("pod_template.metadata.*", lambda key: key in ("labels", "annotations"), "a template sets labels and annotations"),
    ("pod_template", _has_mappings("metadata", "spec"), "'metadata' and 'spec' are mappings"),
    ("pod_template.metadata", _has_mappings("labels"), "'labels' is a mapping"),
    ("pod_template.metadata.labels.*", is_free, _OURS),
    ("pod_template.metadata.annotations.*", is_free, _OURS),
    (
        "pod_template.spec.*",
        lambda key: key != "terminationGracePeriodSeconds",
        "use grace_seconds: the agent reads it",
    ),
    ("pod_template.spec.volumes.*.name", _is_free_volume, _OURS),
    ("pod_template.spec.initContainers.*.env.*.name", _is_free_variable, _OURS),
    ("pod_template.spec.containers.*.env.*.name", _is_free_variable, _OURS),
)


def pod_context(user: int, group: int) -> dict[str, Any]:
    """Return the security context of a pod whose processes are this user and group."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": group,
        "fsGroup": group,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def violations(spec: dict[str, Any]) -> list[Problem]:
    """Return everything in a pod's ``spec`` that would let it reach its node, or be root."""
    found = list(_problems(_POD, spec, "spec"))
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for position, container in enumerate(spec.get(kind) or ()):
            place, own = f"spec.{kind}.{position}", container.get("securityContext") or {}
            found += _problems(_INHERITED, (spec.get("securityContext") or {}) | own, f"{place}.securityContext")
            found += _problems(_CONTAINER, own, f"{place}.securityContext")
            found += _problems([_PORTS], container, place)
    return [(path, f"a pod that runs Terraform {sentence}") for path, sentence in found]


def field_problems(fields: dict[str, Any], *more: Rule) -> list[Problem]:
    """Return what breaks a rule in these fields of a pool's section ``kubernetes``."""
    return list(_problems((*_FIELDS, *more), fields))


def _problems(rules: Iterable[Rule], found: Any, place: str = "") -> Iterator[Problem]:
    for path, allowed, sentence in rules:
        for where, value in _values(found, path.split("."), place):
            if not allowed(value):
                yield where.removeprefix("."), sentence.format(value)


def _values(found: Any, path: list[str], place: str) -> Iterator[tuple[str, Any]]:
    if not path:
        yield place, found
    elif path[0] == "*":
        items = zip(found, found, strict=True) if isinstance(found, dict) else enumerate(found or ())
        for key, item in items:
            yield from _values(item, path[1:], f"{place}.{key}")
    else:
        yield from _values((found or {}).get(path[0]), path[1:], f"{place}.{path[0]}")
