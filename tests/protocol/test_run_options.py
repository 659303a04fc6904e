"""What a run may be asked for: addresses by their form, variables by name and size."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from workers.protocol.run_options import RunOptions

RESOURCES = [
    "aws_instance.web",
    "aws_instance.web[0]",
    'aws_instance.web["a key, with [brackets] and \\"quotes\\""]',
    "module.net.aws_subnet.public",
    'module.net["eu"].module.inner[1].aws_subnet.public[0]',
    "terraform_data.größe",
]
OTHERS = ["module.net", 'module.net["eu"].module.inner[1]', "data.aws_ami.latest", "module.net.data.aws_ami.latest[2]"]
NONE = [
    "", "aws_instance", "-destroy", "aws_instance.web; rm -rf /", "aws_instance.web\n", "aws_instance.web[", "a.b[-1]",
    'a.b["x]', "module.", "module.net.", ".a.b", "a.b.c", "data.a", "a.b" * 400, "a .b", "$(id).b", "a.b[x]",
]  # fmt: skip


@pytest.mark.parametrize("address", RESOURCES + OTHERS)
def test_resources_and_modules_can_be_targets(address):
    assert RunOptions(targets=[address]).targets == (address,)


@pytest.mark.parametrize("address", RESOURCES)
def test_resources_can_be_replaced(address):
    assert RunOptions(replace=[address]).replace == (address,)


@pytest.mark.parametrize("address", NONE)
def test_what_can_be_no_address_is_refused(address):
    for option in ("targets", "replace"):
        with pytest.raises(ValidationError, match="is no address of a resource"):
            RunOptions(**{option: [address]})


@pytest.mark.parametrize("address", OTHERS)
def test_modules_and_data_can_not_be_replaced(address):
    with pytest.raises(ValidationError, match="is no address of a resource"):
        RunOptions(replace=[address])


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("variables", {"not a name": 1}, "'not a name' is not a variable name"),
        ("variables", {"large": "x" * 64_000}, "more than 64,000 bytes"),
        ("parallelism", 0, "greater than or equal to 1"),
        ("targets", ["a.b"] * 101, "at most 100 items"),
    ],
)
def test_what_is_too_much_is_refused(option, value, said):
    with pytest.raises(ValidationError, match=said):
        RunOptions(**{option: value})
