"""A child that dies is started again, less and less eagerly, and not for ever."""

import os
import sys

import pytest

from tests.waiting import eventually
from workers.cluster import processes
from workers.embedded.children import DEATHS, DEATHS_WINDOW, Child
from workers.protocol.errors import Unavailable


@pytest.fixture
def child(tmp_path):
    log = tmp_path / "control.log"

    def start():
        return processes.start(
            [sys.executable, "-c", "import sys; sys.exit('no such thing')"],
            environment=os.environ, directory=tmp_path, log=log,
        )  # fmt: skip

    return Child("control", start, lambda: True, log)


def die(child, now):
    child.process = child.start()
    eventually(lambda: not child.alive)
    return child.died(now)


def test_its_death_is_told_with_its_last_words_and_where_to_read_on(child):
    sentence = die(child, 100.0)
    assert sentence.startswith("control ended (exit code 1): no such thing. See ")
    assert str(child.log) in sentence


def test_each_pause_is_longer_than_the_one_before(child):
    pauses = []
    for moment in range(DEATHS - 1):
        die(child, float(moment))
        pauses.append(child.start_at - moment)
    assert pauses == sorted(set(pauses))
    assert 0 < pauses[0] <= 1


def test_a_child_that_dies_too_often_is_given_up(child):
    for moment in range(DEATHS - 1):
        die(child, float(moment))
    with pytest.raises(Unavailable, match=f"no such thing.*That was the {DEATHS}th time within"):
        die(child, float(DEATHS))


def test_deaths_of_long_ago_do_not_count(child):
    for n in range(DEATHS + 2):
        die(child, n * DEATHS_WINDOW)
    assert len(child.deaths) == 1
