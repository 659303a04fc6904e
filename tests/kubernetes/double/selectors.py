"""Label and field selectors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.kubernetes.double.errors import bad_request

Matcher = Callable[[dict[str, Any]], bool]

# What objects can be selected by beside their names; what is not set is the text that follows.
_FIELDS = {
    "pods": {"status.phase": "", "spec.nodeName": ""},
    "nodes": {"spec.unschedulable": "false"},
    "events": {"involvedObject.name": "", "involvedObject.uid": "", "reason": "", "type": ""},
}
_EVERYWHERE = {"metadata.name": "", "metadata.namespace": ""}


def labels(selector: str) -> Matcher:
    terms = [_label_term(term) for term in _split(selector)]
    return lambda found: all(term(found) for term in terms)


def fields(resource: str, selector: str) -> Matcher:
    known = _EVERYWHERE | _FIELDS.get(resource, {})
    terms = []
    for term in filter(None, selector.split(",")):
        name, operator, value = re.fullmatch(r"([^=!]+)(!=|==?)(.*)", term).groups()
        if name not in known:
            raise bad_request(f"field label not supported: {name}")
        terms.append((name, operator, value))
    return lambda found: all(
        (_field(found, name, known[name]) == value) is (operator != "!=") for name, operator, value in terms
    )


def _field(found: dict[str, Any], path: str, unset: str) -> str:
    value: Any = found
    for part in path.split("."):
        value = (value or {}).get(part)
    return unset if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def of_object(selector: dict[str, Any]) -> Matcher:
    """Return what a LabelSelector with matchLabels matches; an empty one matches everything."""
    wanted = (selector.get("matchLabels") or {}).items()
    return lambda found: wanted <= (found or {}).items()


def _split(selector: str) -> list[str]:
    # A comma parts terms, but not the values of a set.
    parts = re.split(r",(?![^(]*\))", selector)
    return [part.strip() for part in parts if part.strip()]


def _label_term(term: str) -> Matcher:
    if match := re.fullmatch(r"(\S+)\s+(in|notin)\s+\(([^)]*)\)", term):
        key, operator, values = match[1], match[2], {value.strip() for value in match[3].split(",")}
        return lambda found: (found.get(key) in values) is (operator == "in")
    if match := re.fullmatch(r"([^=!]+?)\s*(!=|==?)\s*(\S*)", term):
        key, operator, value = match.groups()
        return lambda found: (found.get(key) == value) is (operator != "!=")
    if term.startswith("!"):
        return lambda found: term[1:] not in found
    return lambda found: term in found
