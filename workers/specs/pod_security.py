"""What every pod of a pool is by default, and what none may be.

An agent runs other people's Terraform. So it is neither root nor privileged, can't become so, and shares nothing of
its node. :func:`violations` looks at the whole pod, after the pool's template was merged in: taking a default away is
as much a violation as asking for the opposite.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

AGENT_USER = 10001  # the user of the agent image

CONTAINER: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "privileged": False,
    "readOnlyRootFilesystem": True,
}
# What may be given back to a container that has lost all capabilities, as Kubernetes' "restricted" level has it.
_HARMLESS_CAPABILITIES = frozenset({"NET_BIND_SERVICE"})
_HOST = {
    "hostNetwork": "share the network of its node",
    "hostPID": "see the processes of its node",
    "hostIPC": "share the memory of its node's processes",
}

Violation = tuple[str, str]


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


def violations(spec: dict[str, Any]) -> list[Violation]:
    """Return the path and the sentence for everything in a pod's ``spec`` that is refused."""
    return [*_of_pod(spec), *_of_volumes(spec), *_of_containers(spec)]


def _of_pod(spec: dict[str, Any]) -> Iterator[Violation]:
    for name, what in _HOST.items():
        if spec.get(name):
            yield f"spec.{name}", f"a pod that runs Terraform may not {what}"
    if spec.get("hostUsers") is True:
        yield "spec.hostUsers", "a pod that runs Terraform may not share the users of its node: leave it unset"
    if (spec.get("securityContext") or {}).get("sysctls"):
        yield "spec.securityContext.sysctls", "a pod that runs Terraform may not change its kernel's settings"


def _of_volumes(spec: dict[str, Any]) -> Iterator[Violation]:
    for position, volume in enumerate(spec.get("volumes") or []):
        if "hostPath" in volume:
            yield f"spec.volumes.{position}.hostPath", "a pod that runs Terraform may not mount directories of its node"


def _of_containers(spec: dict[str, Any]) -> Iterator[Violation]:
    pod = spec.get("securityContext") or {}
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for position, container in enumerate(spec.get(kind) or []):
            own = container.get("securityContext") or {}
            path = f"spec.{kind}.{position}"
            yield from _of_user(f"{path}.securityContext", {**pod, **own})
            yield from _of_privileges(f"{path}.securityContext", own)
            if any(port.get("hostPort") for port in container.get("ports") or []):
                yield f"{path}.ports", "a pod that runs Terraform may not take a port of its node"


def _of_user(path: str, context: dict[str, Any]) -> Iterator[Violation]:
    if context.get("runAsUser") == 0:
        yield f"{path}.runAsUser", "a pod that runs Terraform may not run as root"
    if context.get("runAsNonRoot") is not True:
        yield f"{path}.runAsNonRoot", "a pod that runs Terraform may not run as root: this has to stay true"
    if (context.get("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield f"{path}.seccompProfile", "a pod that runs Terraform keeps a seccomp profile"
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield f"{path}.windowsOptions.hostProcess", "a pod that runs Terraform may not run in its node"


def _of_privileges(path: str, context: dict[str, Any]) -> Iterator[Violation]:
    if context.get("privileged"):
        yield f"{path}.privileged", "a pod that runs Terraform may not be privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{path}.allowPrivilegeEscalation", "a pod that runs Terraform may not become root: this has to be false"
    if context.get("procMount", "Default") != "Default":
        yield f"{path}.procMount", "a pod that runs Terraform may not see more of /proc than others"
    capabilities = context.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or []):
        yield f"{path}.capabilities.drop", "a pod that runs Terraform drops ALL capabilities"
    if added := set(capabilities.get("add") or []) - _HARMLESS_CAPABILITIES:
        named = ", ".join(sorted(added))
        yield f"{path}.capabilities.add", f"a pod that runs Terraform may not have the capabilities {named}"
