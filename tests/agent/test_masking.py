"""What is masked does not show, in whatever form it is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.masking import MASKED, SHORTEST, Mask, decrypted
from agent.output import MAX_LINE, Lines
from workers.protocol.encryption import Keyring, new_key
from workers.protocol.errors import InvalidRequest
from workers.protocol.messages import Order

words = st.text(min_size=SHORTEST).map(str.strip).filter(lambda text: len(text) >= SHORTEST and MASKED not in text)


@given(words, st.text(), st.text())
def test_a_value_never_shows_in_a_line(value: str, before: str, after: str) -> None:
    mask = Mask({"password": value})
    assert value not in mask(before + value + after) or value in MASKED


def test_every_line_of_a_value_and_its_json_form_are_masked() -> None:
    key = '-----BEGIN-----\nabcd"efgh\n-----END-----'
    mask = Mask({"key": key})
    for printed in (*key.splitlines(), json.dumps(key), json.dumps({"nested": [key]})):
        assert "efgh" not in mask(printed)
        assert "BEGIN" not in mask(printed)


@pytest.mark.parametrize("printed", [r"\"<pä&ss>\"", r"\"\u003cpä\u0026ss\u003e\"", r"\"<p\u00e4&ss>\""])
def test_a_value_is_masked_however_terraform_quotes_it(printed: str) -> None:
    """As its language, its JSON and Python's write texts."""
    assert Mask({"password": '"<pä&ss>"'})(f"x {printed} y") == f"x {MASKED} y"


def test_values_inside_values_and_numbers_are_masked_and_what_is_too_short_is_not() -> None:
    mask = Mask({"db": {"password": "hunter22", "ports": [54321, 1]}, "on": True})
    assert mask("hunter22 54321 1 True") == f"{MASKED} {MASKED} 1 True"


def test_masks_go_through_whole_trees() -> None:
    mask = Mask({"password": "hunter22"})
    assert mask.tree({"a": ["x hunter22", 1], "hunter22": None}) == {"a": [f"x {MASKED}", 1], MASKED: None}


def test_a_line_that_is_cut_shows_no_beginning_of_a_value() -> None:
    mask = Mask({"password": "hunter22"})
    lines: list[str] = []
    cutter = Lines(lambda text: lines.append(mask(text)), mask.longest)
    cutter.feed(b"x" * (MAX_LINE - 4) + b"hunter22" + b"y" * 100 + b"\n")
    assert "hunt" not in lines[0]


def test_without_values_nothing_changes() -> None:
    assert Mask()("anything") == "anything"


def order(encrypted: str | None) -> Order:
    return Order.model_validate(
        {
            "run": "run-1", "workspace": "net", "kind": "plan", "phase": "plan", "slot": 1, "token": "t" * 16,
            "source": {"type": "directory", "path": "/code"}, "timeout": 1, "interrupt_grace": 1, "sealed": encrypted,
        }
    )  # fmt: skip


def test_an_order_is_opened_with_any_key_of_the_pools_secret_and_shows_nothing(tmp_path: Path) -> None:
    old, new = new_key(), new_key()
    secret = {"username": "u", "password": "p", "payload_keys": [new, old]}
    (tmp_path / "pool.json").write_text(json.dumps(secret))
    content = {"variables": {"password": "hunter22"}, "environment": {"TOKEN": "token-value"}}
    sensitive = decrypted(order(Keyring([old], "keys").encrypt(content)), tmp_path)
    assert sensitive.variables == {"password": "hunter22"}
    assert Mask(sensitive.model_dump())("token-value") == MASKED
    assert "hunter22" not in repr(sensitive)


def test_an_order_that_no_key_opens_is_refused_with_a_sentence(tmp_path: Path) -> None:
    encrypted = Keyring([new_key()], "keys").encrypt({})
    with pytest.raises(InvalidRequest, match="TERRASLOT_SECRET_DIR"):
        decrypted(order(encrypted), None)
    (tmp_path / "pool.json").write_text('{"username": "u", "password": "p", "payload_keys": ["' + new_key() + '"]}')
    with pytest.raises(InvalidRequest, match="None of the keys in the pool's Secret"):
        decrypted(order(encrypted), tmp_path)
