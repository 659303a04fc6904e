"""What a person says of the pods of a Kubernetes pool; checked when the pool is saved.

Where Kubernetes has objects of its own (variables, volumes, tolerations, affinity …) they are written as Kubernetes
writes them. ``pod_template`` is merged over all else, as a strategic-merge patch.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from workers.specs.pod_security import AGENT_USER, CONTAINER, pod_context, violations
from workers.specs.pod_template import OUR_VARIABLES, OUR_VOLUMES, Problem, is_ours, problems_of
from workers.specs.strategic_merge import merge

AGENT_CONTAINER = "agent"
WORK_DIR = "/var/lib/terraslot"
SECRET_DIR = "/etc/terraslot/secret"  # noqa: S105 - a directory
TEMPORARY_DIR = "/tmp"  # noqa: S108 - the pod's own

_QUANTITY = re.compile(r"(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?")
_DNS = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_LABEL_KEY = re.compile(rf"(?:{_DNS}(?:\.{_DNS})*/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{{0,61}}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")


def _quantity(text: str) -> str:
    if not _QUANTITY.fullmatch(text):
        raise ValueError(f"{text!r} is no quantity: write 500m, 2, 1Gi or the like")
    return text


def _selector(labels: dict[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no key of a label")
        if not _LABEL_VALUE.fullmatch(value):
            raise ValueError(f"{value!r}, the value of {key!r}, is no label's: 63 letters, digits, '-', '_' and '.'")
    return labels


def _labels(labels: dict[str, str]) -> dict[str, str]:
    return _selector(_keys(labels))


def _keys(named: dict[str, str]) -> dict[str, str]:
    for key in named:
        if not _LABEL_KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no key of an annotation")
        if is_ours(key):
            raise ValueError(f"{key!r} belongs to the platform and can't be set")
    return named


Quantity = Annotated[str, AfterValidator(_quantity)]
Quantities = dict[str, Quantity]
ObjectName = Annotated[str, StringConstraints(pattern=rf"^{_DNS}(?:\.{_DNS})*$", max_length=253)]
Object = dict[str, Any]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Resources(_Part):
    """What a pod asks for and may use at most. A namespace with a quota refuses pods that ask for nothing."""

    requests: Quantities = {"cpu": "500m", "memory": "1Gi"}
    limits: Quantities = {}


class WorkVolume(_Part):
    """Where an agent keeps plans: the pod's emptyDir, or with ``storage_class`` a claim that lives as long as the pod.

    Either outlives a restarted container. ``size`` bounds it; a claim needs one.
    """

    size: Quantity | None = None
    storage_class: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _claims_have_a_size(self) -> Self:
        if self.storage_class and not self.size:
            raise ValueError("a claim needs a size: say how much storage each pod gets")
        return self


class KubernetesSpec(_Part):
    """The pods of a Kubernetes pool.

    ``image`` holds the agent. ``env`` and ``env_from`` reach Terraform too: cloud credentials, proxies. ``user`` and
    ``group`` are numbers above 0; the work directory belongs to the group. ``grace_seconds``: from SIGTERM to
    SIGKILL; unless set, what the longest apply and its interruption may take. ``service_account_token``: mount the
    service account's token. ``deployment``: the Deployment that creates and deletes the pods of this pool instead of
    the platform, before it is taken over and after it was given back. ``adopting``: it is being taken over, and until
    that is done nothing is scaled, nor asked to leave.
    """

    image: str = Field(min_length=1, max_length=512, pattern=r"^\S+$")
    image_pull_policy: str | None = Field(default=None, pattern="^(Always|IfNotPresent|Never)$")
    image_pull_secrets: tuple[ObjectName, ...] = ()
    resources: Resources = Resources()
    env: tuple[Object, ...] = ()
    env_from: tuple[Object, ...] = ()
    volumes: tuple[Object, ...] = ()
    volume_mounts: tuple[Object, ...] = ()
    work_volume: WorkVolume = WorkVolume()
    service_account: ObjectName | None = None
    service_account_token: bool = False
    node_selector: Annotated[dict[str, str], AfterValidator(_selector)] = {}
    tolerations: tuple[Object, ...] = ()
    affinity: Object = {}
    priority_class: ObjectName | None = None
    runtime_class: ObjectName | None = None
    labels: Annotated[dict[str, str], AfterValidator(_labels)] = {}
    annotations: Annotated[dict[str, str], AfterValidator(_keys)] = {}
    user: int = Field(default=AGENT_USER, ge=1, le=2**31 - 1)
    group: int = Field(default=AGENT_USER, ge=1, le=2**31 - 1)
    grace_seconds: int | None = Field(default=None, ge=30, le=30 * 86400)
    pod_template: Object = {}
    deployment: ObjectName | None = None
    adopting: bool = False

    @model_validator(mode="after")
    def _is_a_safe_pod(self) -> Self:
        problems = [*_named(self), *problems_of(self.pod_template)]
        if not problems:
            try:
                problems = _unsafe(self)
            except ValueError as error:
                path, _, sentence = str(error).partition(": ")
                problems = [(f"pod_template.{path}", sentence)]
            except (AttributeError, TypeError, KeyError) as error:
                problems = [("pod_template", f"this is not shaped like a pod ({error})")]
        if problems:
            raise ValidationError.from_exception_data(type(self).__name__, [_detail(*each) for each in problems])
        return self


def skeleton(spec: KubernetesSpec) -> dict[str, Any]:
    """Return the part of a pod that is about security, before the pool's template is merged in."""
    agent = {"name": AGENT_CONTAINER, "securityContext": CONTAINER}
    context = pod_context(spec.user, spec.group)
    return {"spec": {"securityContext": context, "volumes": list(spec.volumes), "containers": [agent]}}


def merged(base: dict[str, Any], spec: KubernetesSpec) -> dict[str, Any]:
    """Return ``base`` with the pool's template merged in; containers that the template adds are as confined as ours.

    Raises :class:`ValueError` with the path of what can't be merged.
    """
    pod = merge(base, spec.pod_template)
    for kind in ("initContainers", "containers"):
        if containers := pod.get("spec", {}).get(kind):
            pod["spec"][kind] = [_confined(container) for container in containers]
    return pod


def _confined(container: dict[str, Any]) -> dict[str, Any]:
    if container["name"] == AGENT_CONTAINER:
        return container
    return {**container, "securityContext": {**CONTAINER, **(container.get("securityContext") or {})}}


def _unsafe(spec: KubernetesSpec) -> list[Problem]:
    pod = merged(skeleton(spec), spec)
    containers = pod.get("spec", {}).get("containers") or []
    if not any(container["name"] == AGENT_CONTAINER for container in containers):
        return [("pod_template.spec.containers", f"the container {AGENT_CONTAINER!r} has to stay")]
    return [(f"pod_template.{path}", sentence) for path, sentence in violations(pod["spec"])]


def _named(spec: KubernetesSpec) -> list[Problem]:
    """Return what is wrong with objects that need a name, or have one of ours."""
    problems = []
    for field, objects in (("env", spec.env), ("volumes", spec.volumes)):
        for position, each in enumerate(objects):
            name = each.get("name")
            if not isinstance(name, str) or not name:
                problems.append((f"{field}.{position}.name", "a name is missing"))
            elif (field == "env" and name.startswith(OUR_VARIABLES)) or (field == "volumes" and name in OUR_VOLUMES):
                problems.append((f"{field}.{position}.name", f"{name!r} belongs to the platform and can't be set"))
            elif "hostPath" in each:
                sentence = "a pod that runs Terraform may not mount directories of its node"
                problems.append((f"{field}.{position}.hostPath", sentence))
    volumes = {volume.get("name") for volume in spec.volumes}
    for position, mount in enumerate(spec.volume_mounts):
        if not str(mount.get("mountPath", "")).startswith("/"):
            problems.append((f"volume_mounts.{position}.mountPath", "an absolute path is missing"))
        elif mount["mountPath"].rstrip("/") in (WORK_DIR, SECRET_DIR, TEMPORARY_DIR):
            problems.append((f"volume_mounts.{position}.mountPath", f"{mount['mountPath']} is the platform's"))
        elif mount.get("name") not in volumes:
            problems.append((f"volume_mounts.{position}.name", f"there is no volume {mount.get('name')!r}"))
    return problems


def _detail(path: str, sentence: str) -> InitErrorDetails:
    location = tuple(int(part) if part.isdigit() else part for part in path.split("."))
    # The sentence may hold braces, which are placeholders in a message of pydantic's.
    error = PydanticCustomError("pod", "{sentence}", {"sentence": sentence})
    return InitErrorDetails(type=error, loc=location, input=None)
