"""What is said of a value that is refused: where it is, what it is unless it may be secret, and what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from workers.protocol.kinds import Phase
from workers.protocol.names import Name
from workers.protocol.sources import Source
from workers.protocol.validation import dotted, problems


class Inner(BaseModel):
    url: str

    @field_validator("url")
    @classmethod
    def _https(cls, url: str) -> str:
        if not url.startswith("https://"):
            raise ValueError("must start with https://")
        return url


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Name = "a"
    count: int = Field(default=0, ge=0)
    inner: Inner | None = None
    password: str = ""


def wrong(**values: object) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(values)
    return caught.value


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"count": "many"}, "count='many': must be a whole number"),
        ({"count": -1}, "count=-1: must be at least 0"),
        ({"inner": {"url": "ftp://host"}}, "inner.url='ftp://host': must start with https://"),
        ({"inner": {}}, "inner.url is not set"),
        ({"name": "Net_1"}, "name='Net_1': a name has lower-case letters, digits and '-'"),
        ({"name": {"token": "hunter2"}}, "name: must be text"),
        ({"pasword": "hunter2"}, "pasword: there is no such field"),
        ({"inner": {"url": "ssh://me:hunter2@host"}}, "inner.url='ssh://me@host': must"),
    ],
)
def test_the_field_its_value_and_what_is_allowed_are_said(values: dict[str, object], said: str) -> None:
    (clause,) = problems(wrong(**values), values=True)
    assert clause.startswith(said)
    assert "hunter2" not in clause


@pytest.mark.parametrize("say", [problems, lambda error: problems(error, values=True, secret={"password", "count"})])
def test_a_value_is_left_out_unless_it_is_asked_for_and_where_its_field_is_secret(
    say: Callable[[ValidationError], list[str]],
) -> None:
    said = say(wrong(count="hunter2", password=5))
    assert said[0].startswith("count: must be a whole number")
    assert "hunter2" not in " ".join(said)


class Every(BaseModel):
    model_config = ConfigDict(extra="forbid")

    number: float = Field(default=1, gt=0, lt=9)
    limit: int = Field(default=1, le=9)
    flag: bool = False
    word: str = Field(default="ab", min_length=2, max_length=4)
    code: str = Field(default="a", pattern="^a$")
    kind: Literal["plan", "apply"] = "plan"
    phase: Phase = Phase.PLAN
    entries: tuple[str, ...] = Field(default=("a",), min_length=1, max_length=2)
    values: dict[str, str] = {}
    home: Path = Path()
    source: Source | None = None


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("number", "x", "must be a number"),
        ("number", 0, "must be more than 0"),
        ("number", 9, "must be less than 9"),
        ("limit", 10, "must be at most 9"),
        ("limit", 1.5, "must be a whole number"),
        ("flag", "perhaps", "must be true or false"),
        ("word", "a", "must have at least 2 characters"),
        ("word", "abcde", "must have at most 4 characters"),
        ("code", "b", "must match ^a$"),
        ("kind", "destroy", "must be 'plan' or 'apply'"),
        ("phase", "destroy", "must be 'plan' or 'apply'"),
        ("entries", 1, "must be a list"),
        ("entries", [], "must have at least 1 entries"),
        ("entries", ["a"] * 3, "must have at most 2 entries"),
        ("values", 1, "must be a mapping of names to values"),
        ("home", 1, "must be a path"),
        ("source", {"type": "disk"}, "its 'type' is 'disk', and must be one of 'directory', 'git', 'archive'"),
        ("source", {"path": "/"}, "its 'type' is not set"),
        ("colour", "red", "there is no such field"),
    ],
)
def test_no_rule_is_said_in_words_of_the_library(field: str, value: object, rule: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Every.model_validate({field: value})
    assert problems(caught.value) == [f"{field}: {rule}"]


def test_the_caller_names_the_fields_and_bounds_their_number() -> None:
    error = wrong(count="x", name="X", password=1)
    assert [each.partition(":")[0] for each in problems(error, path=lambda path: dotted(path).upper())] == [
        "NAME", "COUNT", "PASSWORD",
    ]  # fmt: skip
    assert len(problems(error, at_most=2)) == 2
