"""What is said of a value that is refused: where it is, what it is unless it may be secret, and what is allowed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from workers.protocol.names import Name
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
        ({"count": "many"}, "count='many': Input should be a valid integer"),
        ({"count": -1}, "count=-1: Input should be greater than or equal to 0"),
        ({"inner": {"url": "ftp://host"}}, "inner.url='ftp://host': must start with https://"),
        ({"inner": {}}, "inner.url is not set"),
        ({"name": "Net_1"}, "name='Net_1': a name has lower-case letters, digits and '-'"),
        ({"name": {"token": "hunter2"}}, "name: Input should be a valid string"),
        ({"pasword": "hunter2"}, "pasword: Extra inputs are not permitted"),
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
    assert said[0].startswith("count: Input should be a valid integer")
    assert "hunter2" not in " ".join(said)


def test_the_caller_names_the_fields_and_bounds_their_number() -> None:
    error = wrong(count="x", name="X", password=1)
    assert [each.partition(":")[0] for each in problems(error, path=lambda path: dotted(path).upper())] == [
        "NAME", "COUNT", "PASSWORD",
    ]  # fmt: skip
    assert len(problems(error, at_most=2)) == 2
