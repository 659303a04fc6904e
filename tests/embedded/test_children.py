"""A child that dies is started again, less and less eagerly, and not for ever."""

import os
import sys

import pytest

from workers.cluster import processes
from workers.core.errors import Unavailable
from workers.embedded.children import DEATHS, DEATHS_WINDOW, Child


@pytest.fixture
def child(tmp_path):
    log = tmp_path / "control.log"

    def start():
        return processes.start(
            [sys.executable, "-c", "import sys; sys.exit('no such thing')"],
            environment=os.environ, directory=tmp_path, log=log,
        )  # fmt: skip

    return Child("control", start, lambda: True, log)


def die(child, until, now):
    child.process = child.start()
    until(lambda: not child.alive)
    return child.died(now)


def test_its_death_is_told_with_its_last_words_and_where_to_read_on(child, until):
    sentence = die(child, until, 100.0)
    assert sentence.startswith("control ended (exit code 1): no such thing. See ")
    assert str(child.log) in sentence


def test_each_pause_is_longer_than_the_one_before(child, until):
    pauses = []
    for moment in range(DEATHS - 1):
        die(child, until, float(moment))
        pauses.append(child.start_at - moment)
    assert pauses == sorted(set(pauses))
    assert 0 < pauses[0] <= 1


def test_a_child_that_dies_too_often_is_given_up(child, until):
    for moment in range(DEATHS - 1):
        die(child, until, float(moment))
    with pytest.raises(Unavailable, match=f"no such thing.*That was the {DEATHS}th time within"):
        die(child, until, float(DEATHS))


def test_deaths_of_long_ago_do_not_count(child, until):
    for n in range(DEATHS + 2):
        die(child, until, n * DEATHS_WINDOW)
    assert len(child.deaths) == 1
