"""What is read from Terraform's JSON. As a program, for long ones: ``python -I summary.py plan|output FILE ROOM ROOM``.

The JSON of a plan may have hundreds of megabytes, and ten times that as Python's objects. The process that guards an
apply reads no more than :data:`SHORT` of it; the rest is read by a child of its own, whose memory is bounded, which the
kernel ends first where memory is short, and which prints no more than a report holds.

Imports nothing of the project, so that the program starts in an isolated Python.
"""

import json
import re
import resource
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

SHORT = 2**20  # bytes
MEMORY = 3 * 2**30  # bytes of address space: ten times the longest JSON that is read, and Python
MASKED = "(sensitive)"
_NAMES = 100  # of outputs that do not fit

# What becomes of a resource, the gravest first: in this order they are kept where not all fit.
_ACTIONS = ("delete", "replace", "forget", "other", "update", "create", "read", "no-op")
_REPLACED = (["delete", "create"], ["create", "delete"])
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_KNOWN_KEY = re.compile(r"[^\W\d][\w-]*")
# Characters.
LONGEST_ADDRESS, LONGEST_PATH, LONGEST_WORD = 1_000, 500, 100
_REPLACE_PATHS = 20
_DEEPEST = 20
# Bytes of JSON: of one value, of all attributes of one resource, of what stands around the attributes of a resource,
# and around all resources.
_VALUE, _OF_ONE, _AROUND_ONE, _AROUND_ALL = 2_000, 8_000, 60, 400

# A resource, and its attributes that change: they are read when it is known how many fit.
Resource = tuple[dict[str, Any], Iterable[dict[str, Any]]]


def parsed(content: bytes) -> Any:
    """Return a JSON value. Terraform writes no half of a surrogate pair, but whatever else writes into its output may.

    No report can hold one, so each is replaced.
    """
    text = content.decode(errors="replace")
    value = json.loads(text)
    if _HALF.search(text):
        return json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))
    return value


def summary(kind: str, found: Mapping[str, Any], room: int) -> dict[str, Any]:
    """Return what a plan's JSON says: counts, ``outputs`` and ``resources``; or the ``outputs`` of an output's.

    A replacement is an add and a destroy. Of a plan's outputs, those that are known before the apply; of the changes
    of its resources, what fits into ``room`` bytes.
    """
    if kind == "output":
        return {"outputs": outputs(found)}
    actions = [action for change in found.get("resource_changes", ()) for action in change["change"]["actions"]]
    counts = {"add": actions.count("create"), "change": actions.count("update"), "destroy": actions.count("delete")}
    known = outputs(found.get("planned_values", {}).get("outputs", {}))
    return {**counts, "outputs": known, "plan": fitting_resources(resources(found), room)}


def outputs(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return outputs by name; sensitive ones without their value, and none that is not known yet."""
    return {
        name: MASKED if output.get("sensitive") else output["value"]
        for name, output in values.items()
        if output.get("sensitive") or "value" in output
    }


def fitting(values: Mapping[str, Any], room: int) -> tuple[dict[str, Any], list[str]]:
    """Return the outputs that fit into ``room`` bytes, in order, and the names of those that do not."""
    kept: dict[str, Any] = {}
    left_out: list[str] = []
    for name, value in values.items():
        size = len(json.dumps({name: value}))
        if size > room:
            left_out.append(name)
        else:
            kept[name] = value
            room -= size
    return kept, left_out


def resources(plan: Mapping[str, Any]) -> Iterator[Resource]:
    """Yield what becomes of each resource, the gravest first, then what has changed outside of Terraform."""
    for kind in ("resource_changes", "resource_drift"):
        shown = [change for change in plan.get(kind, ()) if _action(change) != "no-op" or _is_noted(change)]
        for change in sorted(shown, key=lambda each: _ACTIONS.index(_action(each))):
            drift = {"drift": True} if kind == "resource_drift" else {}
            yield {**_resource(change), **drift}, attributes(change["change"])


def attributes(change: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the attributes that change: ``path``, ``before`` and ``after``, without what Terraform marks as sensitive.

    A value that is too long is named in ``large`` instead; one that is known after the apply is ``unknown``.
    """
    names = ("before", "after", "after_unknown", "before_sensitive", "after_sensitive")
    return _differences((), _Compared(*(change.get(name) for name in names)))


def fitting_resources(
    found: Iterable[Resource], room: int, left_out: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Return the ``resources`` that fit into ``room`` bytes of JSON, and how many are ``left_out``, by action.

    The addresses come before all attributes, and the attributes of what is destroyed come last: all of them go.
    """
    kept: list[Resource] = []
    missing = Counter(left_out or {})
    room -= _AROUND_ALL
    for facts, changed in found:
        size = _size(facts) + _AROUND_ONE
        if size > room or max(len(facts["address"]), len(facts.get("moved_from", ""))) > LONGEST_ADDRESS:
            missing[facts["action"]] += 1
        else:
            kept.append((facts, changed))
            room -= size
    for facts, changed in sorted(kept, key=lambda each: each[0]["action"] == "delete"):
        room -= _fill(facts, changed, min(room, _OF_ONE))
    return {"resources": [facts for facts, _ in kept], **({"left_out": dict(missing)} if missing else {})}


def _fill(facts: dict[str, Any], changed: Iterable[dict[str, Any]], room: int) -> int:
    """Give a resource the attributes that fit into ``room`` bytes; return how many they take."""
    kept: list[dict[str, Any]] = []
    used, missing = 0, facts.pop("attributes_left_out", 0)
    try:
        for attribute in changed:
            size = _size(attribute) + 2
            if used + size > room or len(attribute["path"]) > LONGEST_PATH:
                missing += 1
            else:
                kept.append(attribute)
                used += size
    except RecursionError:  # nested too deeply to be read
        missing += 1
    facts |= {"attributes": kept} if kept else {}
    facts |= {"attributes_left_out": missing} if missing else {}
    return used


def _action(found: Mapping[str, Any]) -> str:
    actions = found["change"]["actions"]
    if actions in _REPLACED:
        return "replace"
    return next((action for action in _ACTIONS if action in actions), "other")


def _is_noted(found: Mapping[str, Any]) -> bool:
    return bool(found.get("previous_address") or found["change"].get("importing"))


def _resource(found: Mapping[str, Any]) -> dict[str, Any]:
    change = found["change"]
    paths = (_path(path) for path in change.get("replace_paths", ())[:_REPLACE_PATHS])
    facts = {
        "address": found["address"],
        "action": _action(found),
        "reason": (found.get("action_reason") or "")[:LONGEST_WORD],
        "replace_paths": [path for path in paths if len(path) <= LONGEST_PATH],
        "create_first": change["actions"] == ["create", "delete"],
        "deposed": (found.get("deposed") or "")[:LONGEST_WORD],
        "moved_from": found.get("previous_address"),
        "imported": bool(change.get("importing")),
    }
    return {name: value for name, value in facts.items() if value}


class _Compared(NamedTuple):
    """The same place in what a resource is, what it becomes, and in what Terraform marks of both."""

    before: Any
    after: Any
    unknown: Any
    hidden_before: Any
    hidden_after: Any


def _differences(path: tuple[Any, ...], at: _Compared) -> Iterator[dict[str, Any]]:
    whole = True in at[2:] or len(path) >= _DEEPEST
    parts = () if whole else _parts(at.before, at.after, at.unknown)
    for part in parts:
        yield from _differences((*path, part), _Compared(*(_part(each, part) for each in at)))
    if not parts and (_marked(at.unknown) or at.before != at.after):
        # What was sensitive before is not told by what it is now, nor the reverse.
        sensitive = _marked(at.hidden_before) or _marked(at.hidden_after)
        yield _attribute(_path(path), at.before, at.after, unknown=_marked(at.unknown), sensitive=sensitive)


def _parts(before: Any, after: Any, unknown: Any) -> Sequence[Any]:
    """Return the keys or indexes to be compared one by one; none for values and for lists of values."""
    given = [each for each in (before, after) if each is not None]
    if given and all(isinstance(each, dict) for each in given):
        marked = unknown if isinstance(unknown, dict) else {}
        return list(dict.fromkeys([*(before or ()), *(after or ()), *marked]))
    if given and all(isinstance(each, list) for each in given):
        nested = any(isinstance(item, dict | list) for each in given for item in each)
        return range(max(map(len, given))) if nested or _marked(unknown) else ()
    return ()


def _part(value: Any, part: Any) -> Any:
    if isinstance(value, dict):
        return value.get(part)
    return value[part] if isinstance(value, list) and part < len(value) else None


def _attribute(path: str, before: Any, after: Any, *, unknown: bool, sensitive: bool) -> dict[str, Any]:
    values = {"before": before} if unknown else {"before": before, "after": after}
    if sensitive:
        values = {name: None if value is None else MASKED for name, value in values.items()}
    large = [name for name, value in values.items() if _is_large(value)]
    facts = {
        "path": path,
        **{name: None if name in large else value for name, value in values.items()},
        "unknown": unknown or None,
        "sensitive": sensitive or None,
        "large": large or None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _marked(mark: Any) -> bool:
    return any(map(_marked, _values(mark))) if isinstance(mark, dict | list) else mark is True


def _is_large(value: Any) -> bool:
    return (isinstance(value, str) and len(value) > _VALUE) or _is_deep(value, _DEEPEST) or _size(value) > _VALUE


def _is_deep(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    return levels == 0 or any(_is_deep(part, levels - 1) for part in _values(value))


def _values(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _path(parts: Sequence[Any]) -> str:
    """Return a path as a configuration writes it: ``tags["a b"][0].name``."""
    text = ""
    for part in parts:
        if isinstance(part, str) and _KNOWN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part, ensure_ascii=False)}]"
    return text


def _size(value: Any) -> int:
    return len(json.dumps(value))


def main(kind: str, path: str, room: str, resources_room: str) -> None:
    """Print the summary of a file, with the outputs and the resources that fit into so many bytes."""
    with suppress(OSError, ValueError):  # not everywhere
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        with Path(path).open("rb") as file:
            found = summary(kind, json.load(file), int(resources_room))
    except MemoryError:
        sys.exit("to read it takes more memory than there is")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        sys.exit(f"it is something else: {error!r:.200}")
    kept, left_out = fitting(found["outputs"], int(room))
    print(json.dumps({**found, "outputs": kept, "left_out": left_out[:_NAMES]}))  # noqa: T201 - the agent reads it


if __name__ == "__main__":
    main(*sys.argv[1:])
