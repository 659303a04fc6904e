"""The Dockerfile as stages of instructions: enough of its grammar for the file at hand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"


@dataclass(frozen=True)
class Stage:
    name: str
    base: str
    instructions: list[tuple[str, str]]

    def all(self, keyword: str) -> list[str]:
        return [text for word, text in self.instructions if word == keyword]

    def last(self, keyword: str) -> str:
        return self.all(keyword)[-1]


def stages() -> dict[str, Stage]:
    found: dict[str, Stage] = {}
    current: list[tuple[str, str]] = []
    for keyword, text in _instructions():
        if keyword == "FROM":
            base, name = re.fullmatch(r"(\S+) AS (\S+)", text).groups()  # type: ignore[union-attr]
            current = []
            found[name] = Stage(name, base, current)
        else:
            current.append((keyword, text))
    return found


def ancestry(name: str) -> list[Stage]:
    """The stage, what it is built on, and so on; the nearest first."""
    known, line = stages(), []
    while name in known:
        line.append(known[name])
        name = known[name].base
    return line


def _instructions() -> list[tuple[str, str]]:
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    logical = "\n".join(lines).replace("\\\n", "\n\\").split("\n")
    joined: list[str] = []
    for line in logical:
        if line.startswith("\\"):
            joined[-1] += " " + line[1:].strip()
        elif line.strip():
            joined.append(line.strip())
    return [(keyword.upper(), text.strip()) for keyword, _, text in (line.partition(" ") for line in joined)]
