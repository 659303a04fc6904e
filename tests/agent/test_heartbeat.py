"""An agent that can't reach its slot map tries again, and not at the same moments as the others."""

from __future__ import annotations

import pytest

from agent.heartbeat import pause_after


@pytest.mark.parametrize(
    ("failures", "least", "most"), [(1, 0.75, 1.5), (3, 3.0, 6.0), (50, 5.0, 10.0), (10**6, 5.0, 10.0)]
)
def test_agents_that_one_outage_has_silenced_do_not_come_back_together(
    failures: int, least: float, most: float
) -> None:
    pauses = [pause_after(failures) for _ in range(100)]
    assert least <= min(pauses) < max(pauses) <= most
    assert len(set(pauses)) > 90
