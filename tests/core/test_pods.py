"""F30: a pod is marked exactly while a slot of it is running or reserved."""

from __future__ import annotations

import pytest

from workers.core.pods import Marking, Pod, PodPhase, markings
from workers.core.reconcile import DeletePod, DrainAgent, orphaned_pods
from workers.protocol.kinds import RunKind
from workers.protocol.leases import AgentRecord, Lease, SlotState


def pod(name: str = "a", **more: object) -> Pod:
    return Pod(name, "u", "p", 0.0, **{"phase": PodPhase.RUNNING, **more})  # type: ignore[arg-type]


def agent(*states: SlotState, name: str = "a", draining: bool = False) -> AgentRecord:
    leases = tuple(
        Lease(f"r{slot}", RunKind.PLAN, name, slot, "token", state, since=0.0) for slot, state in enumerate(states)
    )
    return AgentRecord(name, "life", draining, False, 0.0, 0.0, None, leases)


@pytest.mark.parametrize("state", [SlotState.RUNNING, SlotState.RESERVED])
def test_a_busy_pod_is_marked(state: SlotState) -> None:
    assert markings([pod()], [agent(state)]) == [Marking(pod(), protected=True)]
    assert markings([pod(protected=True)], [agent(state)]) == []


def test_the_marks_of_an_idle_pod_are_removed() -> None:
    marked = pod(protected=True)
    assert markings([marked], [agent()]) == [Marking(marked, protected=False)]
    assert markings([marked], []) == [Marking(marked, protected=False)]
    assert markings([pod()], [agent()]) == []


def test_marks_that_somebody_took_in_part_are_made_whole_or_removed() -> None:
    torn = pod(protected=None)
    assert markings([torn], [agent(SlotState.RUNNING)]) == [Marking(torn, protected=True)]
    assert markings([torn], [agent()]) == [Marking(torn, protected=False)]


@pytest.mark.parametrize("ending", [{"deleting": True}, {"phase": PodPhase.FAILED}, {"phase": PodPhase.SUCCEEDED}])
def test_a_pod_that_is_ending_is_left_alone(ending: dict[str, object]) -> None:
    assert markings([pod(**ending)], [agent(SlotState.RUNNING)]) == []


def test_a_stray_pod_goes_once_it_holds_nothing() -> None:
    assert orphaned_pods([pod()], [agent()]) == [DeletePod(pod(), "its pool p was deleted")]
    assert orphaned_pods([pod()], []) == [DeletePod(pod(), "its pool p was deleted")]
    assert orphaned_pods([pod()], [agent(SlotState.RUNNING)]) == [DrainAgent("a")]
    assert orphaned_pods([pod()], [agent(SlotState.RUNNING, draining=True)]) == []
    assert orphaned_pods([pod(deleting=True)], []) == []
