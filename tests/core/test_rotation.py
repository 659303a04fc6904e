"""Rotation by overlap, as a table: every agent always has a credential that works (F27)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.core.rotation import (
    OVERLAP,
    RECONNECT,
    Credential,
    Disconnect,
    Issue,
    Retire,
    Step,
    encrypting_generation,
    rotation,
)

NOW = 1_000_000.0
MAX_AGE = 30 * 86_400.0


def credential(generation: int, age: float, *, disconnected: float | None = None) -> Credential:
    return Credential("net", generation, NOW - age, None if disconnected is None else NOW - disconnected)


OLD, NEW = credential(1, 900), credential(2, OVERLAP)


@pytest.mark.parametrize(
    ("credentials", "in_use", "requested", "steps"),
    [
        pytest.param([], [], False, [Issue(1)], id="a pool without a credential gets one"),
        pytest.param([credential(1, 60)], [], False, [], id="a young one stays"),
        pytest.param([credential(1, 60)], [], True, [Issue(2)], id="a rotation is requested"),
        pytest.param([credential(1, MAX_AGE + 1)], [], False, [Issue(2)], id="an old one is followed"),
        pytest.param([OLD, credential(2, OVERLAP - 1)], [], True, [], id="both hold during the overlap"),
        pytest.param([OLD, NEW], [OLD.username], False, [Disconnect(OLD)], id="then the old one's users move"),
        pytest.param([OLD, NEW], [NEW.username], False, [Retire(OLD)], id="and it is retired when unused"),
        pytest.param(
            [credential(1, 900, disconnected=RECONNECT - 1), NEW], [NEW.username], False, [],
            id="but not while a disconnected agent may be about to connect with it",
        ),
        pytest.param(
            [credential(1, 900, disconnected=RECONNECT), NEW], [NEW.username], False,
            [Retire(credential(1, 900, disconnected=RECONNECT))], id="no agent connected with it again",
        ),
        pytest.param(
            [credential(1, 900, disconnected=30), NEW], [OLD.username], False, [],
            id="an agent that connects with it again is not disconnected at once",
        ),
        pytest.param(
            [credential(1, 900, disconnected=OVERLAP), NEW], [OLD.username], False,
            [Disconnect(credential(1, 900, disconnected=OVERLAP))], id="but after the overlap",
        ),
    ],
)  # fmt: skip
def test_rotation(credentials: list[Credential], in_use: list[str], requested: bool, steps: list[Step]) -> None:
    assert rotation(credentials, in_use, NOW, max_age=MAX_AGE, requested=requested) == steps


def test_orders_are_encrypted_with_a_key_that_every_agent_has() -> None:
    assert encrypting_generation([credential(1, 10)], NOW) == 1
    assert encrypting_generation([credential(1, 900), credential(2, OVERLAP - 1)], NOW) == 1
    assert encrypting_generation([credential(1, 900), credential(2, OVERLAP)], NOW) == 2


@given(st.lists(st.floats(0, 10 * OVERLAP), min_size=1, max_size=4), st.booleans(), st.data())
def test_the_newest_is_never_retired_nor_one_in_use(ages: list[float], requested: bool, data: st.DataObject) -> None:
    ages.sort(reverse=True)
    credentials = [credential(number, age) for number, age in enumerate(ages, 1)]
    in_use = data.draw(st.sets(st.sampled_from([one.username for one in credentials])))
    for step in rotation(credentials, in_use, NOW, max_age=MAX_AGE, requested=requested):
        if isinstance(step, Retire):
            assert step.credential is not credentials[-1]
            assert step.credential.username not in in_use
