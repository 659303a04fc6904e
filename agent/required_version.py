"""What a configuration requires of Terraform's version: ``required_version`` in its root module.

It only chooses among the versions that the agent has. What can't be read with certainty counts as nothing said, and
Terraform itself has the last word.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from agent.module import Module
from workers.protocol.programs import Constraint, constraints

# Bytes of all files that say it. They are small by custom; hostile ones must not keep the agent's other slots waiting.
_MOST_BYTES = 128 * 1024
_NAME = "required_version"
_CODE = re.compile(r'[{}="]|#|//|/\*|<<-?(?=[A-Za-z_])|[A-Za-z_][\w-]*')
_PASSED_OVER = ("#", "//", "/*", "<<", "<<-")
_STRING = re.compile(r'\\.|"|\$\$\{|%%\{|[$%]\{|\n')


class _Unsure(Exception):
    """The text is none that this module can follow."""


def required_versions(module: Module) -> list[Constraint]:
    """Return all constraints that the files of a module name, none where one of them is unclear."""
    found: list[Constraint] = []
    room = _MOST_BYTES
    with suppress(OSError, ValueError, RecursionError, _Unsure):
        for name in module.files:
            content = module.content(name) or b""
            if _NAME.encode() not in content:
                continue
            room -= len(content)
            if room < 0:
                return []
            said = _of_json if name.endswith(".json") else _of_text
            found += [constraint for text in said(content.decode()) for constraint in constraints(text)]
        return found
    return []


def _of_json(text: str) -> Iterator[str]:
    blocks: Any = json.loads(text)
    blocks = blocks.get("terraform") if isinstance(blocks, dict) else None
    for block in blocks if isinstance(blocks, list) else [blocks]:
        if isinstance(block, dict) and _NAME in block:
            yield str(block[_NAME])


def _of_text(text: str) -> Iterator[str]:
    """Yield the value of each ``required_version`` in a block ``terraform`` of a file."""
    before: list[str] = []  # the words in front, back to the last brace: as many as are looked at
    depth, inside = 0, False
    for word in _words(text):
        if word == "{":
            inside = inside if depth else before == ["terraform"]
            depth += 1
        elif word == "}":
            depth -= 1
        elif inside and depth == 1 and before[-2:] == [_NAME, "="] and word.startswith('"'):
            yield word[1:]
        before = [] if word in ("{", "}") else [*before[-2:], word]
        if depth < 0:
            raise _Unsure
    if depth:
        raise _Unsure


def _words(text: str) -> Iterator[str]:
    """Yield the names, braces and equals signs of a file, and its strings, each behind one quotation mark."""
    at = 0
    while found := _CODE.search(text, at):
        word, begin = found[0], found.end()
        at = _behind(text, word, begin)
        if word == '"':
            yield f'"{text[begin : at - 1]}'
        elif word not in _PASSED_OVER:
            yield word


def _behind(text: str, word: str, at: int) -> int:
    """Return where what begins with a word ends; ``at`` is the end of the word itself."""
    if word in ("#", "//"):
        end = text.find("\n", at)
        return len(text) if end < 0 else end
    if word == "/*":
        return _found(text, "*/", at) + 2
    if word in ("<<", "<<-"):
        return _behind_heredoc(text, at)
    return _behind_string(text, at) if word == '"' else at


def _behind_string(text: str, at: int) -> int:
    while found := _STRING.search(text, at):
        at = found.end()
        if found[0] == '"':
            return at
        if found[0] == "\n":
            break
        if found[0] in ("${", "%{"):
            at = _behind_template(text, at)
    raise _Unsure


def _behind_template(text: str, at: int) -> int:
    depth = 1
    while depth and (found := _CODE.search(text, at)):
        at = _behind(text, found[0], found.end())
        depth += (found[0] == "{") - (found[0] == "}")
    if depth:
        raise _Unsure
    return at


def _behind_heredoc(text: str, at: int) -> int:
    end = _found(text, "\n", at)
    mark = text[at:end].strip()
    while True:
        begin, end = end + 1, _found(text, "\n", end + 1)
        if text[begin:end].strip() == mark:
            return end


def _found(text: str, what: str, at: int) -> int:
    place = text.find(what, at)
    if place < 0:
        raise _Unsure
    return place
