"""Kubernetes' strategic merge, for pod templates: a patch says only what differs.

Mappings are merged key by key, null removes a key. Most lists are replaced; those that Kubernetes keeps by a name (the
containers of a pod, their variables and mounts …) are merged item by item, in which ``$patch: delete`` removes the
item and ``$patch: replace`` takes it instead of merging. ``$patch: replace`` in a mapping replaces the mapping.

One difference is intended: a volume is replaced whole, since a volume has one source. (The API has the directive
``$retainKeys`` for that.)
"""

from typing import Any

DIRECTIVE = "$patch"
_DELETE, _REPLACE, _MERGE = "delete", "replace", "merge"

_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
# By the name of the list within a pod; a key of several parts identifies by all of them.
_KEYS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (*_CONTAINERS, "volumes", "env", "imagePullSecrets", "resourceClaims", "schedulingGates"), ("name",)
    ),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "ports": ("containerPort", "protocol"),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
_DEFAULTS = {"protocol": "TCP"}
_WHOLE = frozenset({"volumes"})


def merge(base: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``patch`` merged into it; neither is changed. Raises :class:`ValueError` with the path."""
    return _mapping(base, patch, "")


def _mapping(base: dict[str, Any], patch: dict[str, Any], path: str) -> dict[str, Any]:
    directive = patch.get(DIRECTIVE, _MERGE)
    if directive not in (_MERGE, _REPLACE):
        raise ValueError(f"{path or 'the template'}: $patch is '{_REPLACE}' or '{_MERGE}' here, not {directive!r}")
    result = {} if directive == _REPLACE else dict(base)
    for key, value in patch.items():
        where = f"{path}.{key}" if path else key
        if key == DIRECTIVE:
            continue
        if key.startswith("$"):
            raise ValueError(f"{where}: $patch is the only directive that is supported")
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _value(key, result.get(key), value, where)
    return result


def _value(key: str, base: Any, patch: Any, path: str) -> Any:
    if isinstance(patch, dict):
        return _mapping(base if isinstance(base, dict) else {}, patch, path)
    if isinstance(patch, list) and key in _KEYS:
        return _items(key, base if isinstance(base, list) else [], patch, path)
    return patch


def _items(key: str, base: list[Any], patch: list[Any], path: str) -> list[Any]:
    items = {_identity(key, item, path): item for item in base}
    for position, item in enumerate(patch):
        where = f"{path}.{position}"
        identity = _identity(key, item, where)
        directive = item.get(DIRECTIVE, _REPLACE if key in _WHOLE else _MERGE)
        if directive == _DELETE:
            items.pop(identity, None)
        elif directive == _REPLACE:
            items[identity] = _mapping({}, {**item, DIRECTIVE: _REPLACE}, where)
        else:
            items[identity] = _mapping(items.get(identity, {}), item, where)
    return list(items.values())


def _identity(key: str, item: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(item, dict):
        raise ValueError(f"{path}: a mapping is expected, not {item!r}")  # noqa: TRY004 - the value of a field
    identity = tuple(item.get(part, _DEFAULTS.get(part)) for part in _KEYS[key])
    if identity[0] is None:
        raise ValueError(f"{path}: {_KEYS[key][0]} is missing, which identifies the items of {key}")
    return identity
