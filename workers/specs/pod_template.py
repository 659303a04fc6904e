"""What belongs to the platform in the pods of a pool, and so can't be set by its configuration or its template."""

from __future__ import annotations

from typing import Any

WORK_VOLUME, SECRET_VOLUME, TEMPORARY_VOLUME = "work", "secret", "tmp"
OUR_VOLUMES = frozenset({WORK_VOLUME, SECRET_VOLUME, TEMPORARY_VOLUME})
OUR_VARIABLES = "TERRASLOT_"

LABELS = "terraslot.dev/"
SAFE_TO_EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict"
DO_NOT_DISRUPT = "karpenter.sh/do-not-disrupt"
_OUR_KEYS = ("app.kubernetes.io/managed-by", "app.kubernetes.io/instance", SAFE_TO_EVICT, DO_NOT_DISRUPT)

Problem = tuple[str, str]


def is_ours(key: str) -> bool:
    """Whether a label or an annotation is the platform's to set."""
    return key.startswith(LABELS) or key in _OUR_KEYS


def problems_of(template: dict[str, Any]) -> list[Problem]:
    """Return the path and the sentence for what a template says that is not for it to say."""
    problems = [
        (f"pod_template.{key}", "a pod template has 'metadata' and 'spec' only")
        for key in template.keys() - {"metadata", "spec"}
    ]
    metadata, spec = template.get("metadata", {}), template.get("spec", {})
    if not isinstance(metadata, dict) or not isinstance(spec, dict):
        return [*problems, ("pod_template", "'metadata' and 'spec' are mappings")]
    problems += [
        (f"pod_template.metadata.{key}", "a template sets labels and annotations only")
        for key in metadata.keys() - {"labels", "annotations"}
    ]
    for field in ("labels", "annotations"):
        ours = [key for key in metadata.get(field) or {} if is_ours(key)]
        problems += [(f"pod_template.metadata.{field}", f"{key!r} belongs to the platform") for key in ours]
    if "terminationGracePeriodSeconds" in spec:
        sentence = "use grace_seconds, which the agent is told as well"
        problems.append(("pod_template.spec.terminationGracePeriodSeconds", sentence))
    return [*problems, *_template_containers(spec), *_template_volumes(spec)]


def _template_containers(spec: dict[str, Any]) -> list[Problem]:
    problems = []
    for kind in ("initContainers", "containers"):
        for position, container in enumerate(_items(spec, kind)):
            for number, variable in enumerate(_items(container, "env")):
                if str(variable.get("name", "")).startswith(OUR_VARIABLES):
                    path = f"pod_template.spec.{kind}.{position}.env.{number}.name"
                    problems.append((path, f"{variable['name']!r} belongs to the platform and can't be set"))
    return problems


def _template_volumes(spec: dict[str, Any]) -> list[Problem]:
    return [
        (f"pod_template.spec.volumes.{position}.name", f"{volume['name']!r} belongs to the platform")
        for position, volume in enumerate(_items(spec, "volumes"))
        if volume.get("name") in OUR_VOLUMES
    ]


def _items(mapping: dict[str, Any], key: str) -> list[dict[str, Any]]:
    items = mapping.get(key)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
