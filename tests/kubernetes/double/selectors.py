"""Label and field selectors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.kubernetes.double.errors import bad_request

Matcher = Callable[[dict[str, Any]], bool]

_FIELDS = {
    "metadata.name": ("metadata", "name"),
    "metadata.namespace": ("metadata", "namespace"),
    "status.phase": ("status", "phase"),
    "spec.nodeName": ("spec", "nodeName"),
}


def labels(selector: str) -> Matcher:
    terms = [_label_term(term) for term in _split(selector)]
    return lambda found: all(term(found) for term in terms)


def fields(selector: str) -> Matcher:
    terms = []
    for term in filter(None, selector.split(",")):
        name, operator, value = re.fullmatch(r"([^=!]+)(!=|==?)(.*)", term).groups()
        if name not in _FIELDS:
            raise bad_request(f"field label not supported: {name}")
        terms.append((_FIELDS[name], operator, value))
    return lambda found: all(
        ((found.get(part) or {}).get(field, "") == value) is (operator != "!=")
        for (part, field), operator, value in terms
    )


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
