"""The configuration of a Kubernetes pool's pods, checked when the pool is saved.

Variables, volumes, tolerations, affinity and the like are written as Kubernetes writes them. ``pod_template`` is merged
over all else, as a strategic-merge patch.
"""

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from workers.protocol.validation import OWN_RULE
from workers.specs.pod_security import AGENT_USER, CONTAINER, Problem, field_problems, is_free, pod_context, violations
from workers.specs.strategic_merge import merge

AGENT_CONTAINER = "agent"
WORK_DIR = "/var/lib/terraslot"
SECRET_DIR = "/etc/terraslot/secret"  # noqa: S105 - a directory
TEMPORARY_DIR = "/tmp"  # noqa: S108 - the pod's own
_OUR_DIRS = (WORK_DIR, SECRET_DIR, TEMPORARY_DIR)

_QUANTITY = re.compile(r"(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?")
_FACTORS = {"": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_DNS = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_LABEL_KEY = re.compile(rf"(?:{_DNS}(?:\.{_DNS})*/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{{0,61}}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")


def _quantity(text: str) -> str:
    if not _QUANTITY.fullmatch(text):
        raise ValueError(f"{text!r} is not a quantity: write 500m, 2 or 1Gi, for example")
    return text


def amount(quantity: str) -> float:
    """Return what a quantity means: ``1Ki`` is 1024."""
    found = _QUANTITY.fullmatch(quantity)
    if found is None:
        raise ValueError(f"{quantity!r} is not a quantity")
    number, suffix = found[1], found[3] or ""
    if suffix.endswith("i"):
        return float(number) * 1024.0 ** (1 + "KMGTPE".index(suffix[0]))
    return float(number) * _FACTORS[suffix] if suffix in _FACTORS else float(number + suffix)


def _selector(labels: dict[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not a key of a label: write name or domain/name")
        if not _LABEL_VALUE.fullmatch(value):
            raise ValueError(f"{value!r}, the value of {key!r}, is invalid: up to 63 letters, digits, '-', '_' and '.'")
    return labels


def _keys(named: dict[str, str]) -> dict[str, str]:
    for key in named:
        if not _LABEL_KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not a key of an annotation: write name or domain/name")
        if not is_free(key):
            raise ValueError(f"{key!r} belongs to the platform and can't be set")
    return named


# The pattern is for the schema alone: the validator has the better sentence.
Quantity = Annotated[str, AfterValidator(_quantity), Field(json_schema_extra={"pattern": f"^({_QUANTITY.pattern})$"})]
Quantities = dict[str, Quantity]
ObjectName = Annotated[str, StringConstraints(pattern=rf"^{_DNS}(?:\.{_DNS})*$", max_length=253)]
Object = dict[str, Any]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Resources(_Part):
    """What a pod requests, and its limits. A namespace with a quota refuses pods without requests."""

    requests: Quantities = {"cpu": "500m", "memory": "1Gi"}
    limits: Quantities = {}


class WorkVolume(_Part):
    """Where an agent keeps plans: an emptyDir, or with ``storage_class`` a volume claim that is deleted with its pod.

    Both outlive a restart of the container. ``size`` is their limit; a claim needs one.
    """

    size: Quantity | None = None
    storage_class: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _claims_have_a_size(self) -> Self:
        if self.storage_class and not self.size:
            raise ValueError("a claim needs a size: set the storage that each pod gets")
        return self


class KubernetesSpec(_Part):
    """The pods of a Kubernetes pool.

    ``image`` holds the agent. ``env`` and ``env_from`` reach Terraform too: cloud credentials, proxies. ``user`` and
    ``group`` are numbers above 0; the work directory belongs to the group. ``grace_seconds``: from SIGTERM to
    SIGKILL; by default the time that the longest apply and its interruption may take. ``service_account_token``: mount
    the token of the service account. ``deployment``: the Deployment that creates and deletes the pods of this pool
    instead of the platform. ``adopting``: the platform is adopting its pods; until that is done the pool is not scaled
    and no pod is released.
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
    labels: Annotated[dict[str, str], AfterValidator(_keys), AfterValidator(_selector)] = {}
    annotations: Annotated[dict[str, str], AfterValidator(_keys)] = {}
    user: int = Field(default=AGENT_USER, ge=1, le=2**31 - 1)
    group: int = Field(default=AGENT_USER, ge=1, le=2**31 - 1)
    grace_seconds: int | None = Field(default=None, ge=30, le=30 * 86400)
    pod_template: Object = {}
    deployment: ObjectName | None = None
    adopting: bool = False

    @model_validator(mode="after")
    def _is_a_safe_pod(self) -> Self:
        try:
            problems = _wrong_fields(self) or _unsafe(self)
        except ValueError as error:
            path, _, sentence = str(error).partition(": ")
            problems = [(f"pod_template.{path}", sentence)]
        except (AttributeError, TypeError, KeyError) as error:
            problems = [("pod_template", f"this is not shaped like a pod ({error})")]
        if problems:
            raise ValidationError.from_exception_data(type(self).__name__, [_detail(*each) for each in problems])
        return self


def merged(base: dict[str, Any], spec: KubernetesSpec) -> dict[str, Any]:
    """Return ``base`` with the pool's template merged in; the template's own containers get the agent's confinement.

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
    agent = {"name": AGENT_CONTAINER, "securityContext": CONTAINER}
    context = pod_context(spec.user, spec.group)
    before = {"securityContext": context, "volumes": list(spec.volumes), "containers": [agent]}
    pod = merged({"spec": before}, spec)
    containers = pod.get("spec", {}).get("containers") or []
    if not any(container["name"] == AGENT_CONTAINER for container in containers):
        return [("pod_template.spec.containers", f"the container {AGENT_CONTAINER!r} can't be removed")]
    return [(f"pod_template.{path}", sentence) for path, sentence in violations(pod["spec"])]


def _wrong_fields(spec: KubernetesSpec) -> list[Problem]:
    volumes = {volume.get("name") for volume in spec.volumes}
    return field_problems(
        spec.model_dump(include={"env", "volumes", "volume_mounts", "pod_template"}),
        ("volume_mounts.*.mountPath", lambda path: str(path).startswith("/"), "an absolute path is missing"),
        ("volume_mounts.*.mountPath", lambda path: str(path).rstrip("/") not in _OUR_DIRS, "{} is the platform's"),
        ("volume_mounts.*.name", lambda name: name in volumes, "there is no volume {!r}"),
    )


def _detail(path: str, sentence: str) -> InitErrorDetails:
    location = tuple(int(part) if part.isdigit() else part for part in path.split("."))
    # The sentence may hold braces, which are placeholders in a message of pydantic's.
    error = PydanticCustomError(OWN_RULE, "{sentence}", {"sentence": sentence})
    return InitErrorDetails(type=error, loc=location, input=None)
