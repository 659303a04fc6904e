"""Writes what the chart says twice: its README from values.yaml, the schema of pools and workspaces from the models.

``python charts/generate.py`` after a change of values.yaml, or of what a pool or a workspace is. With ``--check``
nothing is written, and the exit code is 1 where a file is stale.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from workers.specs.pools import PoolSpec
from workers.specs.workspaces import WorkspaceSpec

CHART = Path(__file__).parent / "terraslot"
README, SCHEMA = CHART / "README.md", CHART / "values.schema.json"
_TABLE = "<!-- Below this line: charts/generate.py. -->"
_DESCRIBES, _GOES_ON = re.compile(r" *# -- (.*)"), re.compile(r" *# (.*)")
_FOR_OTHERS = ("title", "description", "default", "discriminator")
_KEY = re.compile(r"( *)([A-Za-z]+):")


def readme() -> str:
    """Return the README: what is above the line as it is, and below it a table of all values."""
    rows = [f"| `{path}` | `{_shown(default)}` | {text} |" for path, default, text in described()]
    head = README.read_text().partition(_TABLE)[0]
    return "\n".join([f"{head}{_TABLE}\n", "| Value | Default | Meaning |", "| --- | --- | --- |", *rows, ""])


def schema() -> str:
    """Return the values' schema with the parts that follow from the models renewed."""
    document = json.loads(SCHEMA.read_text())
    # The name is the key in the values, and the chart has a default for the image.
    document["$defs"] |= _definitions(PoolSpec, {"PoolSpec": "name", "KubernetesSpec": "image"})
    document["$defs"] |= _definitions(WorkspaceSpec, {"WorkspaceSpec": "name"})
    return json.dumps(document, indent=2, sort_keys=False) + "\n"


def described() -> Iterator[tuple[str, Any, str]]:
    """Yield path, default and meaning of every value that has a comment of the form ``# -- …``."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    path: list[str] = []
    text: list[str] = []
    for line in (CHART / "values.yaml").read_text().splitlines():
        if match := _DESCRIBES.fullmatch(line):
            text = [match[1]]
        elif text and (match := _GOES_ON.fullmatch(line)):
            text.append(match[1])
        elif match := _KEY.match(line):
            path = [*path[: len(match[1]) // 2], match[2]]
            if text:
                yield ".".join(path), _at(values, path), " ".join(text)
            text = []


def _at(values: Any, path: list[str]) -> Any:
    for part in path:
        values = values[part]
    return values


def _shown(default: Any) -> str:
    return json.dumps(default, ensure_ascii=False)


def _definitions(model: type[BaseModel], given_by_the_chart: dict[str, str]) -> dict[str, Any]:
    root = _bare(model.model_json_schema(ref_template="#/$defs/{model}"))
    definitions: dict[str, Any] = {**root.pop("$defs", {}), model.__name__: root}
    for name, key in given_by_the_chart.items():
        definitions[name]["required"] = [each for each in definitions[name].get("required", []) if each != key]
    del definitions[model.__name__]["properties"]["name"]
    return dict(sorted(definitions.items()))


def _bare(schema: Any) -> Any:
    """Return a schema without the keys that Helm does not use."""
    if isinstance(schema, list):
        return [_bare(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "properties" in schema:
        # A stored field may be a newer version's; an unknown field in the values is a mistake.
        schema = {**schema, "additionalProperties": False}
    return {
        # The keys of these are names, not keywords of the schema.
        key: {name: _bare(each) for name, each in value.items()} if key in ("properties", "$defs") else _bare(value)
        for key, value in schema.items()
        if key not in _FOR_OTHERS
    }


def main(arguments: list[str]) -> int:
    """Write the files that are stale; with ``--check``, name them instead."""
    stale = {file: new() for file, new in ((README, readme), (SCHEMA, schema)) if file.read_text() != new()}
    for file, text in stale.items():
        if "--check" in arguments:
            print(f"{file.name} is stale: run `make docs`.", file=sys.stderr)  # noqa: T201 - a program
        else:
            file.write_text(text)
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
