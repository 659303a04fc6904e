"""Versions and constraints as Terraform reads them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from pydantic import TypeAdapter, ValidationError

from workers.protocol.programs import Program, Required, Requirement, Version, constraints, suitable
from workers.protocol.version import instance_id, programs_of, protocol_of

VERSIONS = ["1.8.0", "1.9.0-beta1", "1.9.0-rc1", "1.9.0", "1.9.8", "1.10.0", "1.10.3", "2.0.0-alpha20260101", "2.0.1"]


def meeting(constraint: str) -> list[str]:
    """The versions that meet it."""
    wanted = constraints(constraint)
    return [version for version in VERSIONS if all(each.met_by(Version.of(version)) for each in wanted)]


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        ("1.9.8", ["1.9.8"]),
        ("= 1.9", ["1.9.0"]),
        ("!= 1.9.8, ~> 1.9", ["1.9.0", "1.10.0", "1.10.3"]),
        ("> 1.9.8", ["1.10.0", "1.10.3", "2.0.1"]),
        (">= 1.9.8, < 2.0", ["1.9.8", "1.10.0", "1.10.3"]),
        ("<=1.9", ["1.8.0", "1.9.0"]),
        ("~> 1.9", ["1.9.0", "1.9.8", "1.10.0", "1.10.3"]),
        ("~> 1.9.0", ["1.9.0", "1.9.8"]),
        ("~> 1", ["1.8.0", "1.9.0", "1.9.8", "1.10.0", "1.10.3", "2.0.1"]),
        ("1.10.x", ["1.10.0", "1.10.3"]),
        ("1.x", ["1.8.0", "1.9.0", "1.9.8", "1.10.0", "1.10.3"]),
        ("= 1.9.0-rc1", ["1.9.0-rc1"]),
        (">= 1.9.0-beta1", ["1.9.0-beta1", "1.9.0-rc1", "1.9.0", "1.9.8", "1.10.0", "1.10.3", "2.0.1"]),
        ("~> 1.9.0-beta1", ["1.9.0-beta1", "1.9.0-rc1"]),
        ("> 3", []),
    ],
)
def test_a_constraint_is_met_by_the_versions_that_meet_it_in_terraform(constraint: str, expected: list[str]) -> None:
    assert meeting(constraint) == expected


def test_versions_are_ordered_by_number_and_a_pre_release_comes_before_its_release() -> None:
    orders = [Version.of(version).order for version in VERSIONS]
    assert all(earlier < later for earlier, later in pairwise(orders))


@pytest.mark.parametrize(
    "text",
    [
        "", "~> 1.9", "packer 1.0", "terraform latest", "terraform 1.9,", "terraform ~> 1.x", "terraform 1.2.3.4",
        "terraform => 1.9", "terraform/1.9.8", "tofu --help", f"terraform {'9' * 200}", "terraform 1.9\x00",
    ],
)  # fmt: skip
def test_what_is_no_requirement_is_refused_with_how_to_write_one(text: str) -> None:
    with pytest.raises(ValidationError, match=r"write it as in terraform ~> 1\.9"):
        TypeAdapter(Required).validate_python(text)


def test_a_requirement_names_a_program_and_perhaps_a_version_with_spaces_as_one_likes() -> None:
    assert TypeAdapter(Required).validate_python(" tofu   >=1.5,<2 ") == "tofu >=1.5,<2"
    programs = [program for word in ("terraform/1.9.8", "tofu/1.10.1") if (program := Program.of_word(word))]
    assert list(map(str, suitable("tofu", programs))) == ["tofu 1.10.1"]
    assert suitable("tofu < 1.10", programs) == []
    assert Requirement.of("terraform").met_by(programs[0])


def test_an_instance_id_says_the_protocol_and_the_programs_and_older_ones_say_nothing() -> None:
    programs = [program for word in ("terraform/1.9.8", "tofu/1.10.0-beta1") if (program := Program.of_word(word))]
    assert programs_of(instance_id("c0ffee", programs)) == (*programs,)
    assert protocol_of(instance_id("c0ffee", programs)) == protocol_of("2.c0ffee") == 2
    assert programs_of("c0ffee") == programs_of("2.c0ffee") == ()


def test_what_a_hostile_agent_says_it_has_is_bounded_and_what_is_no_program_is_left_out() -> None:
    said = "2.c0ffee,terraform/1.9.8,$(reboot),terraform/\x1b[2J,tofu/1.2.3.4,terraform/1.9.8"
    assert {str(program) for program in programs_of(said)} == {"terraform 1.9.8"}
    many = [program for patch in range(1_000) if (program := Program.of_word(f"terraform/1.0.{patch}"))]
    assert len(instance_id("c0ffee", many)) <= 800
    assert programs_of(instance_id("c0ffee", many)) == (*many[: len(programs_of(instance_id("c0ffee", many)))],)
    assert len(programs_of("2.c0ffee," + ",".join(program.word for program in many))) < 60
