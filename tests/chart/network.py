"""Network policies as Kubernetes means them: enough of their semantics to ask what reaches what."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """A pod by its namespace, labels and the names of its ports; or, without a namespace, an address outside."""

    namespace: str | None
    labels: tuple[tuple[str, str], ...] = ()
    ports: tuple[tuple[str, int], ...] = ()
    address: str = "10.0.0.1"


def reaches(policies: list[Object], origin: Place, target: Place, port: int) -> bool:
    """Whether the policies let ``origin`` open a connection to a port of ``target``."""
    out = [rule for rule in _rules(policies, origin, "Egress") if _names(rule.get("to"), target, origin.namespace)]
    into = [rule for rule in _rules(policies, target, "Ingress") if _names(rule.get("from"), origin, target.namespace)]
    return any(_opens(rule, port, target) for rule in out) and any(_opens(rule, port, target) for rule in into)


def _rules(policies: list[Object], place: Place, direction: str) -> list[Object]:
    """What the policies about a place allow in one direction; where there are none, everything."""
    about = [policy for policy in policies if direction in policy["spec"]["policyTypes"] and _selects(policy, place)]
    if not about:
        return [{}]
    return [rule for policy in about for rule in policy["spec"].get(direction.lower(), [])]


def _selects(policy: Object, place: Place) -> bool:
    return policy["metadata"]["namespace"] == place.namespace and _matches(
        policy["spec"]["podSelector"], dict(place.labels)
    )


def _names(peers: list[Object] | None, place: Place, policy_namespace: str | None) -> bool:
    return not peers or any(_is(peer, place, policy_namespace) for peer in peers)


def _is(peer: Object, place: Place, policy_namespace: str | None) -> bool:
    if "ipBlock" in peer:
        address, block = ip_address(place.address), peer["ipBlock"]
        inside = address in ip_network(block["cidr"])
        return (
            place.namespace is None
            and inside
            and not any(address in ip_network(net) for net in block.get("except", []))
        )
    if place.namespace is None:
        return False
    here = {"kubernetes.io/metadata.name": place.namespace}
    namespace = (
        _matches(peer["namespaceSelector"], here)
        if "namespaceSelector" in peer
        else place.namespace == policy_namespace
    )
    return namespace and _matches(peer.get("podSelector", {}), dict(place.labels))


def _matches(selector: Object, labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items()
    within = [(each["key"], each["values"]) for each in selector.get("matchExpressions", [])]
    return all(labels.get(key) == value for key, value in wanted) and all(
        labels.get(key) in values for key, values in within
    )


def _opens(rule: Object, port: int, target: Place) -> bool:
    named = dict(target.ports)
    ports = rule.get("ports")
    return not ports or any(named.get(each["port"], each["port"]) == port for each in ports)
