"""Terraform and OpenTofu by version: which ones an agent has, what a run requires of them, and which of these meet.

Constraints are Terraform's own: ``=``, ``!=``, ``>``, ``>=``, ``<``, ``<=`` and ``~>``, separated by commas; a version
alone is that one exactly. ``1.10.x``, which Terraform does not know, is every release of 1.10. A pre-release meets
only a constraint that names a pre-release of the same version, as in hashicorp/go-version. Pure.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field

NAMES = ("terraform", "tofu")
LONGEST_WORD = 60
_PRE = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_NUMBERS = r"\d{1,9}(?:\.\d{1,9}){0,2}"
VERSION = rf"{_NUMBERS}(?:-{_PRE})?(?:\+{_PRE})?"
_VERSION = re.compile(rf"v?({_NUMBERS})(?:-({_PRE}))?(?:\+{_PRE})?")
_WORD = re.compile(rf"({'|'.join(NAMES)})/({VERSION})")
_CONSTRAINT = re.compile(r"(=|!=|>=?|<=?|~>)?\s*(\S+)")
_ANY_OF = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\.[xX*]")
_LONGEST = 200
_HOW = "write it as in terraform ~> 1.9, terraform >= 1.5, < 2.0, or tofu 1.10.x"


@dataclass(frozen=True)
class Version:
    """A version: three numbers, and the parts of a pre-release; ``text`` is how it was written."""

    text: str
    numbers: tuple[int, ...]
    pre: tuple[str, ...] = ()

    @classmethod
    def of(cls, text: str) -> Self:
        """Return a version as it is written. Raises ``ValueError``."""
        found = _VERSION.fullmatch(text) if len(text) < LONGEST_WORD else None
        if found is None:
            raise ValueError(f"{text[:LONGEST_WORD]!r} is no version")
        numbers = [int(number) for number in found[1].split(".")]
        pre = tuple(found[2].split(".")) if found[2] else ()
        return cls(text, (*numbers, 0, 0)[:3], pre)

    @cached_property
    def order(self) -> tuple[Any, ...]:
        """What versions are ordered by: a pre-release comes before its release, numbers before words."""
        parts = tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in self.pre)
        return self.numbers, not self.pre, parts

    @property
    def release(self) -> "Version":
        """The version without what makes it a pre-release."""
        return Version(self.text, self.numbers)


@dataclass(frozen=True)
class Constraint:
    """One condition on a version, which names ``given`` of its three numbers."""

    operator: str
    version: Version
    given: int

    def met_by(self, version: Version) -> bool:
        """Whether a version meets the constraint."""
        return _MEETS[self.operator](version, self)

    def lets_in(self, version: Version) -> bool:
        """Whether a pre-release may be compared at all."""
        wanted = self.version
        return not version.pre or (bool(wanted.pre) and version.numbers == wanted.numbers)


def _pessimistic(version: Version, by: Constraint) -> bool:
    least, fixed = by.version, by.given - 1
    if not by.lets_in(version) or (least.pre and not version.pre) or version.order < least.order:
        return False
    return version.numbers[:fixed] == least.numbers[:fixed]


def _any_of(version: Version, by: Constraint) -> bool:
    return not version.pre and version.numbers[: by.given] == by.version.numbers[: by.given]


_MEETS: Mapping[str, Callable[[Version, Constraint], bool]] = {
    "=": lambda version, by: version.order == by.version.order,
    "!=": lambda version, by: version.order != by.version.order,
    ">": lambda version, by: by.lets_in(version) and version.order > by.version.order,
    ">=": lambda version, by: by.lets_in(version) and version.order >= by.version.order,
    "<": lambda version, by: by.lets_in(version) and version.order < by.version.order,
    "<=": lambda version, by: by.lets_in(version) and version.order <= by.version.order,
    "~>": _pessimistic,
    "any": _any_of,
}


def constraints(text: str) -> tuple[Constraint, ...]:
    """Return the constraints of a text. Raises ``ValueError`` where it is none."""
    return tuple(_constraint(part.strip()) for part in text[: _LONGEST + 1].split(","))


def _constraint(text: str) -> Constraint:
    found = _CONSTRAINT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:LONGEST_WORD]!r} is no constraint on a version")
    operator, version = found[1], found[2]
    if (any_of := _ANY_OF.fullmatch(version)) and operator in (None, "="):
        return Constraint("any", Version.of(any_of[1]), any_of[1].count(".") + 1)
    return Constraint(operator or "=", Version.of(version), re.split(r"[-+]", version)[0].count(".") + 1)


@dataclass(frozen=True)
class Program:
    """Terraform or OpenTofu of one version."""

    name: str
    version: Version

    @classmethod
    def of_word(cls, word: str) -> Self | None:
        """Return the program of its word; None for what is none: an agent may have written anything."""
        found = _WORD.fullmatch(word) if len(word) <= LONGEST_WORD else None
        return cls(found[1], Version.of(found[2])) if found else None

    @property
    def word(self) -> str:
        """How the slot map names it."""
        return f"{self.name}/{self.version.text}"

    def __str__(self) -> str:
        return f"{self.name} {self.version.text}"


@dataclass(frozen=True)
class Requirement:
    """What a run requires: a program, and constraints on its version."""

    name: str
    constraints: tuple[Constraint, ...] = ()

    @classmethod
    def of(cls, text: str) -> Self:
        """Return what a text like ``terraform ~> 1.9`` requires. Raises ``ValueError``."""
        name, _, rest = text.partition(" ")
        if name not in NAMES or len(text) > _LONGEST:
            raise ValueError(f"{text[:LONGEST_WORD]!r} names neither terraform nor tofu: {_HOW}")
        try:
            return cls(name, constraints(rest) if rest else ())
        except ValueError as error:
            raise ValueError(f"{error}: {_HOW}") from None

    def met_by(self, program: Program) -> bool:
        """Whether a program is the one, of such a version."""
        return program.name == self.name and all(each.met_by(program.version) for each in self.constraints)


def _normal(text: str) -> str:
    text = " ".join(text.split())
    Requirement.of(text)
    return text


# What a workspace, a pool or a run requires, as people write it.
Required = Annotated[
    str, AfterValidator(_normal), Field(json_schema_extra={"pattern": rf"^\s*({'|'.join(NAMES)})(\s.*)?$"})
]


def suitable(requirement: str, programs: Iterable[Program]) -> list[Program]:
    """Return the programs that meet a requirement, in their order."""
    required = Requirement.of(requirement)
    return [program for program in programs if required.met_by(program)]


def listed(programs: Iterable[Program]) -> str:
    """Return programs as a sentence names them: by name, the newest first."""
    ordered = sorted(programs, key=lambda program: program.version.order, reverse=True)
    return ", ".join(map(str, sorted(ordered, key=lambda program: program.name)))
