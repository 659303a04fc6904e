"""What is encrypted is read by holders of a key, and by nobody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.protocol.encryption import Keyring, NoKey, new_key

FIRST, SECOND = new_key(), new_key()


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.booleans())))
def test_what_is_encrypted_comes_back_and_shows_nothing(value: dict[str, object]) -> None:
    keys = Keyring([FIRST], "KEYS")
    encrypted = keys.encrypt(value)
    assert keys.decrypt(encrypted) == value
    assert encrypted.isascii()


def test_a_key_is_followed_by_another_without_a_moment_in_between() -> None:
    encrypted = Keyring([FIRST], "KEYS").encrypt("hidden")
    both = Keyring([SECOND, FIRST], "KEYS")
    assert both.decrypt(encrypted) == "hidden"
    assert Keyring([SECOND], "KEYS").decrypt(both.reencrypt(encrypted)) == "hidden"


def test_what_no_key_opens_is_said_so_without_showing_it() -> None:
    encrypted = Keyring([FIRST], "KEYS").encrypt("hidden")
    with pytest.raises(NoKey, match="None of the keys in KEYS") as caught:
        Keyring([SECOND], "KEYS").decrypt(encrypted)
    assert encrypted not in str(caught.value)


def test_no_key_and_what_is_no_key_are_named() -> None:
    with pytest.raises(NoKey, match="KEYS is not set"):
        Keyring([], "KEYS").encrypt(1)
    with pytest.raises(NoKey, match="KEYS holds something that is no Fernet key"):
        Keyring(["hunter2"], "KEYS")
