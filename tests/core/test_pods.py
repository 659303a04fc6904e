"""F30: the cluster may not evict a pod while a slot of it is running or reserved."""

from __future__ import annotations

import pytest

from workers.core.actions import DeletePod, DrainAgent
from workers.core.pods import Pod, PodPhase, SafeToEvict, safe_to_evict_changes
from workers.core.reconcile import orphaned
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
def test_a_busy_pod_is_not_safe_to_evict(state: SlotState) -> None:
    assert safe_to_evict_changes([pod()], [agent(state)]) == [SafeToEvict(pod(), safe=False)]
    assert safe_to_evict_changes([pod(safe_to_evict=False)], [agent(state)]) == []


def test_an_idle_pod_is_safe_to_evict_again() -> None:
    kept = pod(safe_to_evict=False)
    assert safe_to_evict_changes([kept], [agent()]) == [SafeToEvict(kept, safe=True)]
    assert safe_to_evict_changes([kept], []) == [SafeToEvict(kept, safe=True)]
    assert safe_to_evict_changes([pod()], [agent()]) == []


def test_annotations_that_were_removed_in_part_are_repaired_or_removed() -> None:
    torn = pod(safe_to_evict=None)
    assert safe_to_evict_changes([torn], [agent(SlotState.RUNNING)]) == [SafeToEvict(torn, safe=False)]
    assert safe_to_evict_changes([torn], [agent()]) == [SafeToEvict(torn, safe=True)]


@pytest.mark.parametrize("ending", [{"deleting": True}, {"phase": PodPhase.FAILED}, {"phase": PodPhase.SUCCEEDED}])
def test_a_pod_that_is_ending_stays_as_it_is(ending: dict[str, object]) -> None:
    assert safe_to_evict_changes([pod(**ending)], [agent(SlotState.RUNNING)]) == []


def test_an_orphaned_pod_drains_and_is_deleted_once_it_holds_nothing() -> None:
    assert orphaned(pod(), agent()) == DeletePod(pod(), "its pool p was deleted")
    assert orphaned(pod(), None) == DeletePod(pod(), "its pool p was deleted")
    assert orphaned(pod(), agent(SlotState.RUNNING)) == DrainAgent("a", "its pool p was deleted")
    assert orphaned(pod(), agent(SlotState.RUNNING, draining=True)) is None
    assert orphaned(pod(deleting=True), None) is None
