"""A component that dies is started again, less and less eagerly, and not for ever."""

import os
import sys

import pytest

from tests.waiting import eventually
from workers.cluster import processes
from workers.embedded.supervisor import DEATHS, DEATHS_WINDOW, Component
from workers.protocol.errors import Unavailable


@pytest.fixture
def component(tmp_path):
    log = tmp_path / "control.log"

    def start():
        return processes.start(
            [sys.executable, "-c", "import sys; sys.exit('no such thing')"],
            environment=os.environ, directory=tmp_path, log=log,
        )  # fmt: skip

    return Component("control", start, lambda: True, log)


def die(component, now):
    component.process = component.start()
    eventually(lambda: not component.alive)
    return component.died(now)


def test_its_death_is_told_with_its_last_log_line_and_where_to_read_on(component):
    sentence = die(component, 100.0)
    assert sentence.startswith("control ended (exit code 1): no such thing. See ")
    assert str(component.log) in sentence


def test_each_pause_is_longer_than_the_one_before(component):
    pauses = []
    for moment in range(DEATHS - 1):
        die(component, float(moment))
        pauses.append(component.start_at - moment)
    assert pauses == sorted(set(pauses))
    assert 0 < pauses[0] <= 1


def test_a_component_that_dies_too_often_is_given_up(component):
    for moment in range(DEATHS - 1):
        die(component, float(moment))
    with pytest.raises(Unavailable, match=f"no such thing.*That was the {DEATHS}th time within"):
        die(component, float(DEATHS))


def test_deaths_of_long_ago_do_not_count(component):
    for n in range(DEATHS + 2):
        die(component, n * DEATHS_WINDOW)
    assert len(component.deaths) == 1
