"""A server that does not answer is asked now and then, and whoever needs it meanwhile fails at once."""

from __future__ import annotations

from itertools import pairwise

from workers.core.breaker import FIRST_PAUSE, LONGEST_PAUSE, SLOW, THRESHOLD, Breaker

TIME_LIMIT = 20.0


def silent(breaker: Breaker, now: float) -> tuple[Breaker, float]:
    """Return the state after a call that waited in vain, and the time then."""
    later = now + TIME_LIMIT
    return breaker.asking(now).missed(later, now), later


def test_a_few_calls_in_vain_hold_others_back_and_each_try_in_vain_doubles_the_pause() -> None:
    breaker, now, pauses = Breaker(), 0.0, []
    for _ in range(THRESHOLD):
        assert breaker.may_ask(now)
        breaker, now = silent(breaker, now)
    for _ in range(6):
        assert not breaker.may_ask(now)
        pauses.append(breaker.ask_at - now)
        now = breaker.ask_at
        assert breaker.may_ask(now)
        breaker, now = silent(breaker, now)
    assert (pauses[0], pauses[-1]) == (FIRST_PAUSE, LONGEST_PAUSE)
    assert all(later >= earlier for earlier, later in pairwise(pauses))


def test_one_call_at_a_time_tries() -> None:
    breaker, now = Breaker(), 0.0
    for _ in range(THRESHOLD):
        breaker, now = silent(breaker, now)
    trying = breaker.asking(breaker.ask_at)
    assert not trying.may_ask(breaker.ask_at + TIME_LIMIT)
    assert trying.may_ask(breaker.ask_at + LONGEST_PAUSE), "the one that tried may have died"


def test_calls_that_were_made_together_count_as_what_they_show() -> None:
    breaker = Breaker()
    for thread in range(20):
        breaker = breaker.missed(TIME_LIMIT + thread / 100, began=0.0)
    assert breaker.unanswered == THRESHOLD


def test_a_refused_connection_costs_nobody_anything() -> None:
    breaker = Breaker()
    for now in range(10):
        breaker = breaker.missed(now + SLOW / 2, began=now)
    assert breaker == Breaker()


def test_pauses_of_several_processes_are_not_of_one_length() -> None:
    opened = Breaker(THRESHOLD - 1).missed(TIME_LIMIT, began=0.0, jitter=0.8)
    assert opened.ask_at - TIME_LIMIT == 0.8 * FIRST_PAUSE
