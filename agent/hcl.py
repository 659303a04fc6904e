"""Values as Terraform shows them to people, from their JSON and its type."""

import json
from collections.abc import Sequence
from typing import Any

_CALLS = {"list": "tolist", "set": "toset", "map": "tomap"}


def rendered(value: Any, type_: Any, indent: int = 0) -> str:
    """Return a value of Terraform's JSON as an expression of its language. ``type_``: as its JSON writes types."""
    kind, inner = type_ if isinstance(type_, list) else (type_, None)
    types: Any
    call = _CALLS.get(kind)
    match value:
        case None:
            return "null" if kind in (None, "dynamic") or inner else f"to{kind}(null)"
        case dict():
            types = inner if kind == "object" else dict.fromkeys(value, inner)
            items = [f"{_quoted(name)} = {rendered(each, types.get(name), indent + 2)}" for name, each in value.items()]
            text = _several("{}", items, indent)
        case list():
            types = inner if kind == "tuple" else [inner] * len(value)
            items = [f"{rendered(each, of, indent + 2)}," for each, of in zip(value, types, strict=True)]
            text = _several("[]", items, indent)
        case str() if "\n" in value:
            return _heredoc(value, indent)
        case _:
            return _quoted(value)
    return f"{call}({text})" if call else text


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _several(brackets: str, items: Sequence[str], indent: int) -> str:
    if not items:
        return brackets
    inside = "".join(f"{' ' * (indent + 2)}{item}\n" for item in items)
    return f"{brackets[0]}\n{inside}{' ' * indent}{brackets[1]}"


def _heredoc(text: str, indent: int) -> str:
    if not indent:
        return f"<<EOT\n{text}\nEOT"
    return "\n".join(("<<-EOT", *(f"{' ' * indent}{line}" for line in (*text.split("\n"), "EOT"))))
